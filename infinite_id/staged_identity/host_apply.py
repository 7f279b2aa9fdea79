"""A model whose cross-attention reads staged words by noise level, for keys and for values.

The conditioning in the host is the mean of all stages, which carries the stages with it (see
`context`); ControlNets and other nodes read this mean.
When the conds are evaluated, two contexts are added to each cond, one for keys and one for values.
The host batches and splits them with the cond's rows. In the UNet they replace the context, before
other nodes' patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from comfy.conds import CONDCrossAttn
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import ModelSamplingDiscrete, ModelSamplingDiscreteEDM
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ..attention.blocks import context_width
from ..host.conds import Conds
from ..host.keys import STAGED
from .stages import Contexts

KEY = "staged_identity"
"""The contexts' key in a conditioning's dictionary, for when another node has made a plain tensor
of the `StagedContext` beside it."""
_STRENGTH, _AWAITED, _FOUND = (f"{KEY}_{name}" for name in ("strength", "awaited", "contexts"))
"""Keys in the host's transformer options."""
_SIDES = (f"{KEY}_keys", f"{KEY}_values")
"""The names of the contexts among the conds that the host hands to the model."""


def apply_staged(model: ModelPatcher, strength: float) -> ModelPatcher:
    """Return a clone of the model that reads staged words; the model is not changed.

    Args:
        strength: 1 is the words of each stage, 0 their mean.

    Raises:
        ValueError: if the model has no UNet that reads text.
    """
    network = model.model.diffusion_model
    if not hasattr(network, "input_blocks") or not context_width(network):
        raise ValueError(
            f"Apply Staged Identity: this model is a {type(model.model).__name__}, and staged "
            "words act in the cross-attention of a UNet. Connect SD 1.5, SD 2.1 or SDXL, not "
            "compiled by TensorRT."
        )
    patched = model.clone()
    patched.model_options["transformer_options"][_STRENGTH] = strength
    for kind, wrapper in _WRAPPERS.items():
        patched.remove_wrappers_with_key(kind, STAGED)
        patched.add_wrapper_with_key(kind, STAGED, wrapper)
    return patched


def _calc_cond_batch(
    executor: WrapperExecutor,
    model: Any,
    conds: list[Conds | None],
    x: Tensor,
    timestep: Tensor,
    model_options: dict[str, Any],
) -> list[Tensor]:
    """Add the contexts of this noise level to all conds, if one is staged."""
    if any(_find(cond) for group in conds for cond in group or ()):
        share = read_share(model.model_sampling, timestep)
        options = {**model_options["transformer_options"], _AWAITED: True}
        conds = [
            None if group is None else [_add(cond, share, options[_STRENGTH]) for cond in group]
            for group in conds
        ]
        model_options = {**model_options, "transformer_options": options}
    denoised: list[Tensor] = executor(model, conds, x, timestep, model_options)
    return denoised


def read_share(sampling: Any, sigma: Tensor) -> Fraction:
    """Return a noise level as a share of the model's timesteps, 0 without noise.

    For a model without discrete timesteps it is the share of its table of noise levels.
    """
    first = sigma.flatten()[:1]
    by_time = isinstance(sampling, ModelSamplingDiscrete)
    if by_time and not isinstance(sampling, ModelSamplingDiscreteEDM):
        return Fraction(int(sampling.timestep(first)), sampling.num_timesteps)
    levels = sampling.sigmas
    place = (first.log().to(levels) - levels.log()).abs().argmin()
    return Fraction(int(place), len(levels))


def _add(cond: dict[str, Any], share: Fraction, strength: float) -> dict[str, Any]:
    """Return a copy of a cond with a context for keys and one for values.

    If the cond is not staged, both are its own context. The host copies a staged cond for its area
    in the negative prompt; the copy has the negative prompt's context, and so is not staged.
    """
    given: Tensor = cond["model_conds"]["c_crossattn"].cond
    pair = given, given
    contexts = _find(cond)
    if contexts is not None and torch.equal(given, cond["cross_attn"]):
        pair = _choose(contexts, share, strength, given)
    own = {name: CONDCrossAttn(x) for name, x in zip(_SIDES, pair, strict=True)}
    return {**cond, "model_conds": {**cond["model_conds"], **own}}


def _find(cond: Mapping[str, Any]) -> Contexts | None:
    """Return the contexts of a cond, if it is staged."""
    context = cond.get("cross_attn")
    found: Contexts | None = getattr(context, "contexts", None) or cond.get(KEY)
    return found


def _choose(
    contexts: Contexts, share: Fraction, strength: float, given: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the contexts at a share of the timesteps, to replace the given context.

    Raises:
        ValueError: if another node has changed the given context.
    """
    given = given.as_subclass(Tensor)
    mean = contexts.mean.to(given)
    length = mean.shape[1]
    if given.shape[1] < length or not torch.equal(given[:, :length], mean):
        if not given.any():
            return given, given  # Conditioning Zero Out
        raise ValueError(
            "Apply Staged Identity: another node has changed the conditioning of Staged Identity "
            "Prompt, so that its stages fit no more. Take that node out, or put the person into "
            "the prompt that it gives; or take Apply Staged Identity out: then the mean of all "
            "stages is read."
        )
    key, value = (
        torch.cat([_blend(mean, x.to(given), strength), given[:, length:]], dim=1)
        for x in contexts.at(share)
    )
    return key, value


def _blend(mean: Tensor, stage: Tensor, strength: float) -> Tensor:
    return stage if strength == 1 else torch.lerp(mean, stage, strength)


def _diffusion_model(
    executor: WrapperExecutor,
    x: Tensor,
    timesteps: Tensor | None = None,
    context: Tensor | None = None,
    y: Tensor | None = None,
    control: Any = None,
    transformer_options: dict[str, Any] = {},  # noqa: B006  # the host's own signature
    **kwargs: Any,
) -> Any:
    """Replace the UNet's context by the contexts for keys and for values.

    Raises:
        ValueError: if another node has not passed them on.
    """
    options = transformer_options
    if _AWAITED in options:
        pair = tuple(kwargs.pop(name, None) for name in _SIDES)
        if any(one is None or len(one) != len(x) for one in pair):
            raise ValueError(
                "Apply Staged Identity: another node calls the model with rows of its own, and "
                "has not taken the staged words with them, such as a tiled sampler. Take that node "
                "out, or Apply Staged Identity: then the mean of all stages is read."
            )
        patches = options.get("patches", {})
        changed = {**patches, "attn2_patch": [_read_staged, *patches.get("attn2_patch", ())]}
        options = {**options, _FOUND: pair, "patches": changed}
    return executor(x, timesteps, context, y, control, options, **kwargs)


# Not a closure: a compiled model would be compiled anew for each new function.
def _read_staged(
    n: Tensor, _context: Tensor, _value: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    key, value = options[_FOUND]
    return n, key, value


_WRAPPERS = {
    WrappersMP.CALC_COND_BATCH: _calc_cond_batch,
    WrappersMP.DIFFUSION_MODEL: _diffusion_model,
}

"""Applies an identity to a ComfyUI model.

Nothing is put into the model's patch tables here. A model carries its applications and our
wrappers. The attention hooks are made for each forward, around the patches that it finds there.
So no other pack's patch is dropped, and the order of the nodes does not matter.
"""

import logging
from collections.abc import Callable
from typing import Any

from comfy.model_base import SDXL, SDXLRefiner
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..adapters.adapter import check_fits
from ..application import Application
from ..attention.blocks import Layers, context_width, list_layers
from ..savings import Savings
from . import watch_drift
from .archive import GIGABYTE, Archive
from .hooks import apply_model
from .keys import APPLICATIONS, ARCHIVE, KEY, LEFTOVER, SAVINGS, TELL
from .leftover import Leftover
from .sampling import calc_cond_batch, outer_sample, predict_noise
from .shallow import prepare_sampling

log = logging.getLogger(__name__)

_WRAPPERS: dict[str, Callable[..., Any]] = {
    WrappersMP.OUTER_SAMPLE: outer_sample,
    WrappersMP.PREPARE_SAMPLING: prepare_sampling,
    WrappersMP.PREDICT_NOISE: predict_noise,
    WrappersMP.CALC_COND_BATCH: calc_cond_batch,
    WrappersMP.APPLY_MODEL: apply_model,
}
_WATCHERS: dict[str, Callable[..., Any]] = {
    WrappersMP.SAMPLER_SAMPLE: watch_drift.watch_sampler,
    WrappersMP.PREDICT_NOISE: watch_drift.watch_noise,
    WrappersMP.CALC_COND_BATCH: watch_drift.watch_conds,
}

LATE = (
    "remember_text works only if this node comes before Apply Infinite-ID: behind it, another "
    "person or weight runs this node anew, and what it remembers is gone."
)

_STAGES = ("input_blocks", "middle_block", "output_blocks")


def apply(model: ModelPatcher, application: Application) -> ModelPatcher:
    """Return a clone of the model with one more identity applied; the model is not changed.

    Raises:
        ValueError: if the model is no SDXL-like UNet or the identity's adapter does not fit it.
    """
    check_fits(application.identity.adapter, *read_unet(model))
    patched = model.clone()
    options = patched.model_options["transformer_options"]
    options[APPLICATIONS] = (*options.get(APPLICATIONS, ()), application)
    options[LEFTOVER] = Leftover()
    _wrap(patched)
    return patched


def _wrap(model: ModelPatcher) -> None:
    for key, wrappers in ((watch_drift.DRIFT, _WATCHERS), (KEY, _WRAPPERS)):
        for kind, wrapper in wrappers.items():
            model.remove_wrappers_with_key(kind, key)
            model.add_wrapper_with_key(kind, key, wrapper)


def save_time(
    model: ModelPatcher, savings: Savings, tell: Callable[[str], None] = lambda _: None
) -> ModelPatcher:
    """Return a clone of the model that leaves out parts of its steps.

    This affects all identities on the model, applied before or after. If it is called twice, the
    last call wins. Deep features and the negative prompt's end concern a model without an identity,
    too.

    The text stream of earlier runs is remembered as long as the clone, or a clone of it, is there:
    identities that are applied to it later find it.

    Args:
        tell: is given a line after each run that says what was left out.

    Raises:
        ValueError: if one of these two is asked for and the model has no UNet.
    """
    acts_alone = (savings.deep > 1 or savings.agree < 1) and not savings.shared
    if acts_alone:
        read_unet(model)
    patched = model.clone()
    options = patched.model_options["transformer_options"]
    options[SAVINGS], options[TELL] = savings, tell
    if savings.remember:
        if APPLICATIONS in options:
            tell(LATE)
            log.warning("Infinite-ID Save Time: %s", LATE)
        options[ARCHIVE] = Archive(int(savings.remember * GIGABYTE))
    if acts_alone:
        _wrap(patched)
    return patched


def read_unet(model: ModelPatcher) -> tuple[Layers, int]:
    """The cross-attention layers and the context width of a model's UNet.

    Raises:
        ValueError: if the model's network is not a UNet with cross-attention, or something else
            runs in its place.
    """
    network = model.model.diffusion_model
    has_blocks = all(hasattr(network, stage) for stage in _STAGES)
    if not has_blocks and isinstance(model.model, (SDXL, SDXLRefiner)):
        raise ValueError(
            f"Infinite-ID acts inside the UNet, and here a {type(network).__name__} runs in its "
            "place, such as a compiled engine (TensorRT), into which nothing can be put. Load the "
            "model's ordinary checkpoint, or a GGUF of it; torch.compile works, too."
        )
    if not has_blocks or not context_width(network):
        raise ValueError(
            f"Infinite-ID works on SDXL models; this model is {type(model.model).__name__}."
        )
    return list_layers(network), context_width(network)

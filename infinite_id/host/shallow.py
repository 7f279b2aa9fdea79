"""Changes a forward so that it keeps the UNet's deep features, or reads kept ones.

A forward that reads them runs a copy of the host's UNet with the blocks of the outermost level
alone. Other nodes' patches there are called as ever. The features show the effect of patches in
deeper blocks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import ceil
from typing import Any

from comfy.model_management import dtype_size
from comfy.patcher_extension import WrapperExecutor
from torch import Tensor
from torch.nn import Module

from .compiled import as_written, on_copy, uncompiled
from .deep import Kept, Name
from .forward import Forward, Options
from .keys import RUN
from .run import Run
from .text_stream import MissingError

OUTPUT_PATCH = "output_block_patch"
MIDDLE_PATCH = "middle_block_after_patch"

Control = dict[str, list[Tensor | None]] | None
Patch = Callable[[Tensor, Tensor, Options], tuple[Tensor, Tensor]]


def keep_or_recall(
    executor: WrapperExecutor, control: Control, options: Options, forward: Forward
) -> tuple[WrapperExecutor, Control, Options]:
    """Return what to run in place of `executor`, and its control and options.

    Raises:
        MissingError: if features are to be recalled and were not kept.
    """
    unet = forward.run.guider.model_patcher.model.diffusion_model
    names, outer = _name_chunks(forward), _count_outer(unet)
    deeper = len(unet.output_blocks) - outer
    deep, step = forward.run.deep, forward.evaluation.step
    assert deep is not None
    assert step is not None
    if step.is_full:
        if names is not None:
            options = _put_first(options, _make_keep(forward, names, deeper))
        return uncompiled(executor), control, options
    if names is None:
        raise MissingError
    kept = deep.recall(names, forward.layout)
    options = _put_first(options, _make_join(kept, deeper, _has_patches(options)))
    options["patches"].pop(MIDDLE_PATCH, None)
    return on_copy(executor, _cut), _trim(control, outer, deeper), options


def _name_chunks(forward: Forward) -> tuple[Name, ...] | None:
    """The key of each chunk's features; None if it is unknown what a chunk shows."""
    names, step, latents = forward.names, forward.evaluation.step, forward.latents
    if names is None or step is None or latents is None:
        return None
    return tuple(
        (step.key, cond, *shown, latents)
        for cond, (_, _, *shown) in zip(forward.conds, names, strict=True)
    )


def _count_outer(unet: Any) -> int:
    """The number of blocks of the outermost level: as many on the way down as on the way up."""
    return int(unet.num_res_blocks[0]) + 1


def _has_patches(options: Options) -> bool:
    return bool(options.get("patches", {}).get(OUTPUT_PATCH))


def _put_first(options: Options, patch: Patch) -> Options:
    """Copy the options and add an output patch before other nodes' patches."""
    patches = options.get("patches", {})
    changed = {**patches, OUTPUT_PATCH: [patch, *patches.get(OUTPUT_PATCH, ())]}
    return {**options, "patches": changed}


def _make_keep(forward: Forward, names: tuple[Name, ...], deeper: int) -> Patch:
    deep = forward.run.deep
    assert deep is not None
    is_changed = len(forward.patches.get(OUTPUT_PATCH, ())) > 0  # patches change h in place

    def keep(h: Tensor, skip: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        if tuple(options["block"]) == ("output", deeper):
            own = h.clone() if is_changed else h
            deep.keep(Kept(names, forward.layout, own, skip.shape))
        return h, skip

    return keep


def _make_join(kept: Kept, deeper: int, is_changed: bool) -> Patch:
    def join(h: Tensor, skip: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        _, number = options["block"]
        options["block"] = ("output", number + deeper)
        if number:
            return h, skip
        if skip.shape != (len(kept.h), *kept.skip[1:]):
            raise MissingError
        return kept.h.to(skip, copy=is_changed), skip

    return join


def _trim(control: Control, outer: int, deeper: int) -> Control:
    """Return a control's residuals for the outermost level. The host pops them from the end."""
    if control is None:
        return None
    inputs, outputs = control.get("input", []), control.get("output", [])
    kept = {
        "input": inputs[-outer:],
        "middle": [],
        "output": outputs[: max(len(outputs) - deeper, 0)],
    }
    return {**control, **kept}


def _cut(model: Module) -> Module:
    """Copy the host's model with the UNet's outermost level alone; all parameters are shared.

    Raises:
        MissingError: if another node runs the UNet in its own way.
    """
    written = copy.copy(as_written(model))
    unet = written._modules["diffusion_model"]
    cut: Any = copy.copy(unet)
    if getattr(cut.__dict__.get("forward"), "__func__", None) is type(cut).forward:
        del cut.__dict__["forward"]  # its own, as it was before it was compiled
    if cut.__dict__.keys() & {"forward", "_forward"}:
        raise MissingError
    outer = _count_outer(unet)
    blocks = {
        "input_blocks": cut.input_blocks[:outer],
        "middle_block": None,
        "output_blocks": cut.output_blocks[-outer:],
    }
    cut.__dict__["_modules"] = {**cut._modules, **blocks}
    written.__dict__["_modules"] = {**written._modules, "diffusion_model": cut}
    return written


def prepare_sampling(
    executor: WrapperExecutor, model: Any, noise_shape: Any, conds: Any, *args: Any, **kwargs: Any
) -> Any:
    """Have the host leave room for the features.

    The host estimates memory from the latent's size. So it is told a greater height: the added
    lines of pixels need as much memory as the features.
    """
    options = kwargs.get("model_options") or args[0]
    run: Run | None = options["transformer_options"].get(RUN)
    if run is not None and run.deep is not None:
        size = _measure(model.model, noise_shape, sum(len(group or ()) for group in conds.values()))
        size *= 2 if run.text.savings.change else 1  # those before stay until they are compared
        count, channels, height, width = noise_shape
        line = model.model.memory_required([count, channels, 1, width])
        noise_shape = (count, channels, height + ceil(size / line), width)
    return executor(model, noise_shape, conds, *args, **kwargs)


def _measure(model: Any, noise_shape: Any, conds: int) -> int:
    """Bytes of the features of all conds."""
    unet = model.diffusion_model
    width = unet.model_channels * unet.channel_mult[min(1, len(unet.channel_mult) - 1)]
    rows, _, height, pixels = noise_shape
    return int(conds * rows * width * height * pixels * dtype_size(model.get_dtype_inference()))

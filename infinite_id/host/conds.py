"""Reads and changes conds: gives each row its latent's values, compares conds, finds positive ones.

The host deals pictures, masks and hints out to rows as if every row was a latent of its own. So
they are brought to the number of latents first, just as the host would do. Then every copy of a
latent gets the same values.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from copy import copy
from typing import Any

import torch
from comfy.conds import CONDRegular
from comfy.controlnet import ControlBase
from comfy.model_patcher import ModelPatcher
from comfy.utils import resize_to_batch_size
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..streams import Streams

Conds = list[dict[str, Any]]

# Inpaint and edit models read these. The host stretches a batch of them over the rows (a a b b).
_PICTURES = ("concat_latent_image", "concat_mask")
# The host repeats these (a b a b) and drops those too many. The number is ndim with a batch.
_REPEATED = {"cross_attn": 3, "pooled_output": 2, "mask": 3}


def spread(conds: dict[str, Conds], streams: Streams) -> dict[str, Conds]:
    """Return conds in which every row gets its own latent's values."""
    if streams.copies == 1:
        return conds
    dealt: dict[ControlBase, ControlBase] = {}
    return {
        name: [_spread_one(cond, streams, dealt) for cond in group] for name, group in conds.items()
    }


def _spread_one(
    cond: dict[str, Any], streams: Streams, dealt: dict[ControlBase, ControlBase]
) -> dict[str, Any]:
    changed = dict(cond)
    for name in _PICTURES:
        if name in cond:
            changed[name] = streams.spread(resize_to_batch_size(cond[name], streams.latents))
    for name, dimensions in _REPEATED.items():
        if name in cond and cond[name].ndim == dimensions:
            changed[name] = _deal(cond[name], streams.latents)
    if cond.get("control") is not None:
        changed["control"] = _deal_hints(cond["control"], streams.latents, dealt)
    return changed


def _deal_hints(
    control: ControlBase, latents: int, dealt: dict[ControlBase, ControlBase]
) -> ControlBase:
    """Copy the control and those behind it, if one of them has several hints.

    Conds that share a control share its copy. Otherwise the host would need a forward for each.
    """
    hints = [one.cond_hint_original for one in _list_controls(control)]
    if all(hint is None or len(hint) in (1, latents) for hint in hints):
        return control
    if control not in dealt:
        dealt[control] = own = control.copy()  # type: ignore[attr-defined]  # every kind has it
        hint = control.cond_hint_original
        own.cond_hint_original = None if hint is None else _deal(hint, latents)
        if control.previous_controlnet is not None:
            own.set_previous_controlnet(_deal_hints(control.previous_controlnet, latents, dealt))
    return dealt[control]


def _list_controls(control: ControlBase | None) -> Iterator[ControlBase]:
    while control is not None:
        yield control
        control = control.previous_controlnet


def _deal(x: Tensor, latents: int) -> Tensor:
    """`(n, ...)` -> `(latents, ...)`: cut or repeated to the latents; a single one stays single."""
    return x if len(x) == 1 else x[torch.arange(latents) % len(x)]


def is_active(cond: dict[str, Any], timestep: Tensor) -> bool:
    """Whether the host evaluates this cond at this noise level."""
    begins, ends = cond.get("timestep_start"), cond.get("timestep_end")
    waits = begins is not None and timestep[0] > begins
    is_over = ends is not None and timestep[0] < ends
    return not (waits or is_over)


def list_active(given: dict[str, Conds], timestep: Tensor) -> tuple[bool, ...]:
    """Return for each cond whether the host evaluates it at this noise level."""
    return tuple(is_active(cond, timestep) for group in given.values() for cond in group)


def read_course(
    given: dict[str, Conds], timestep: Tensor, patcher: ModelPatcher, options: dict[str, Any]
) -> Hashable:
    """Return the conds' hook strengths and acting controls at this noise level.

    This moves hooks on to their keyframes of this level. The host would do so a moment later, and
    does not do it twice.
    """
    course: list[Hashable] = []
    for cond in (cond for group in given.values() for cond in group if is_active(cond, timestep)):
        hooks = cond.get("hooks")
        if hooks is not None and "default" in cond:
            course.extend(_foresee(hook, timestep, options) for hook in hooks.hooks)
        elif hooks is not None:
            patcher.prepare_hook_patches_current_keyframe(timestep, hooks, options)
            course.extend(hook.strength for hook in hooks.hooks)
        course.extend(_acts(control, timestep) for control in _list_controls(cond.get("control")))
    return tuple(course)


def _foresee(hook: Any, timestep: Tensor, options: dict[str, Any]) -> float:
    """Return a hook's strength at this noise level; the hook is not moved on.

    The host may leave a default cond out, and then does not move its hooks on either.
    """
    keyframes = copy(hook.hook_keyframe)
    keyframes.prepare_current_keyframe(timestep[0], options["transformer_options"])
    return float(keyframes.strength)


def _acts(control: ControlBase, timestep: Tensor) -> bool:
    span = control.timestep_range
    return span is None or bool(span[1] <= timestep[0] <= span[0])


# Not compared: a cond's uuid, and a flag that the host has already used.
_INDIFFERENT = ("uuid", "control_apply_to_uncond")


class Comparison:
    """Tells whether conds give the model the same inputs, such as an empty prompt twice.

    Two tensors are compared once, since a comparison makes a GPU wait.
    """

    def __init__(self) -> None:
        self._equal: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def is_alike(self, conds: Sequence[Conds | None]) -> bool:
        """Whether all conds of an evaluation equal the first one."""
        given = [strip(cond) for group in conds for cond in group or ()]
        return all(self._is_same(given[0], other) for other in given[1:])

    def _is_same(self, a: Any, b: Any) -> bool:
        """Compare known types by value, other objects by identity."""
        if a is b or type(a) is not type(b):
            return a is b
        if isinstance(a, Tensor):
            return self._is_equal(a, b)
        if isinstance(a, CONDRegular):
            return self._is_same(a.cond, b.cond)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(self._is_same(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(self._is_same, a, b))
        return isinstance(a, int | float | str) and a == b

    def _is_equal(self, a: Tensor, b: Tensor) -> bool:
        if (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
            return False
        known = self._equal.setdefault(a, WeakTensorKeyDictionary())
        if b not in known:
            known[b] = torch.equal(a, b)
        return bool(known[b])


def strip(cond: dict[str, Any]) -> dict[str, Any]:
    """Copy a cond without what is not compared."""
    return {key: value for key, value in cond.items() if key not in _INDIFFERENT}


def find_positive(given: dict[str, Conds], groups: Sequence[Conds | None]) -> frozenset[int]:
    """Return the indices of the positive groups: guiders order groups freely, and some have three.

    There may be none: self-attention guidance evaluates the negative conds alone.

    Args:
        given: the guider's conds by name.
    """
    known = [cond for group in given.values() for cond in group or ()]
    if any(_overlaps(group, known) for group in groups):
        positive = given.get("positive", [])
        return frozenset(i for i, group in enumerate(groups) if _overlaps(group, positive))
    return _find_positive_copies(given, groups)


def _overlaps(group: Conds | None, conds: Conds) -> bool:
    return any(one is other for one in group or () for other in conds)


def _find_positive_copies(
    given: dict[str, Conds], groups: Sequence[Conds | None]
) -> frozenset[int]:
    """Find positive groups among copies of the guider's conds. A copy has its original's uuid.

    Only the first of a group counts, since the host adds copies from the other groups behind it.
    """
    firsts = [(group[0]["uuid"], name) for name, group in given.items() if group]
    names = dict(firsts) if len(dict(firsts)) == len(firsts) else {}  # else they tell nothing
    here = [names.get(group[0]["uuid"]) if group else None for group in groups]
    if "positive" in given and any(here):
        return frozenset(index for index, name in enumerate(here) if name == "positive")
    # Conds of other names, or made anew, are in the host's order, positive first; a node that
    # evaluates one more beside the guider's, such as the empty one of PerpNeg, does so alone.
    return frozenset() if "positive" in given and len(groups) == 1 else frozenset({0})

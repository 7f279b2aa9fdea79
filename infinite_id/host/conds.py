"""What conds have for each latent, such as pictures, masks and hints, where each has several rows.

The host deals them out to rows as if every row was a latent of its own. So they are brought to the
number of latents first, just as the host would: then every copy of a latent gets its latent's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from comfy.controlnet import ControlBase
from comfy.utils import resize_to_batch_size
from torch import Tensor

from ..streams import Streams

Conds = list[dict[str, Any]]

# Read by inpaint and edit models; the host stretches a batch of them over the rows (a a b b).
_PICTURES = ("concat_latent_image", "concat_mask")
# Repeated by the host (a b a b), those too many left out; and their dimensions with a batch.
_REPEATED = {"cross_attn": 3, "pooled_output": 2, "mask": 3}


def spread(conds: dict[str, Conds], streams: Streams) -> dict[str, Conds]:
    """Return conds of which every row gets its own latent's share."""
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
    """A copy of the control and of those behind it, where one has several hints.

    Conds that share a control share its copy: the host draws them in one forward for that alone.
    """
    if all(hint is None or len(hint) in (1, latents) for hint in _list_hints(control)):
        return control
    if control not in dealt:
        dealt[control] = copy = control.copy()
        copy.cond_hint_original = _deal(control.cond_hint_original, latents)
        if control.previous_controlnet is not None:
            copy.set_previous_controlnet(_deal_hints(control.previous_controlnet, latents, dealt))
    return dealt[control]


def _list_hints(control: ControlBase | None) -> Iterator[Tensor | None]:
    while control is not None:
        yield control.cond_hint_original
        control = control.previous_controlnet


def _deal(x: Tensor, latents: int) -> Tensor:
    """`(n, ...)` -> `(latents, ...)`: the first ones, or all of them over and over; one for all."""
    return x if len(x) == 1 else x[torch.arange(latents) % len(x)]

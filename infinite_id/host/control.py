"""ControlNets and the like in a batch that holds each latent once for every stream.

The host tells a control how many equal chunks its batch has. The control counts latents within a
chunk to find their hints, masks and strengths. So it is told that every copy of the latents is a
chunk of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy.controlnet import ControlBase
from torch import Tensor

from .conds import Conds


class _EachCopy:
    """Stands for a control and changes its `get_control`; all else is the control's own."""

    def __init__(self, control: ControlBase, copies: int) -> None:
        self._control = control
        self._copies = copies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)

    def get_instance_for_device(self, device: torch.device) -> _EachCopy:
        return _EachCopy(self._control.get_instance_for_device(device), self._copies)

    def get_control(
        self, x: Tensor, t: Tensor, cond: Any, chunks: int, options: dict[str, Any]
    ) -> Any:
        names = ("cond_or_uncond", "uuids")
        told = {n: [of for of in options[n] for _ in range(self._copies)] for n in names}
        control: Any = self._control  # the host's base class does not name the method
        return control.get_control(x, t, cond, chunks * self._copies, {**options, **told})


def control_copies(groups: Sequence[Conds | None], copies: int) -> list[Conds | None]:
    """Return conds whose controls know that the batch holds each latent `copies` times.

    Conds that share a control share its stand-in. Otherwise the host would need a forward for
    each.
    """
    if copies == 1:
        return list(groups)
    known: dict[int, _EachCopy] = {}

    def tell(cond: dict[str, Any]) -> dict[str, Any]:
        control = cond.get("control")
        if control is None:
            return cond
        return {**cond, "control": known.setdefault(id(control), _EachCopy(control, copies))}

    return [None if group is None else [tell(cond) for cond in group] for group in groups]

"""K', V' of identity tokens: what the layers read, and where it is kept."""

from collections.abc import Callable, Sequence
from typing import Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ..attention.blocks import Block

KeyValues = dict[Block, tuple[Tensor, Tensor]]


class Memory(Protocol):
    """What `Projections` asks about memory."""

    def has_room(self, device: torch.device, size: int) -> bool:
        """Return whether a device has room for `size` bytes throughout a sampling run."""

    def pin(self, tensors: Sequence[Tensor], owner: object) -> None:
        """Pin tensors in the CPU's memory until the owner is gone, if possible, for fast copies."""


class _Placed(dict[Block, tuple[Tensor, Tensor]]):
    """K', V' on a device. Their users keep them alive; a plain dict takes no weak references."""


class Projections:
    """K', V' of tokens at every layer, computed once per dtype and kept off the device."""

    def __init__(self, project: Callable[[Tensor], KeyValues], tokens: Tensor) -> None:
        self._project = project
        self.tokens = tokens
        self._stored: dict[torch.dtype, KeyValues] = {}
        self._pinned: set[torch.dtype] = set()
        self._placed: WeakValueDictionary[tuple[torch.device, torch.dtype], _Placed]
        self._placed = WeakValueDictionary()

    def on(self, device: torch.device, dtype: torch.dtype) -> KeyValues:
        """Return `{block: (K', V')}`, each `(b, tokens, width)`, on a device.

        The first call for a dtype projects on the device, weight by weight: the adapter is never
        resident there. Later calls return an earlier result if it is still in use, else a copy.
        """
        placed = self._placed.get((device, dtype))
        if placed is None:
            if dtype in self._stored:
                placed = _Placed(_move(self._stored[dtype], device))
            else:
                placed = _Placed(self._compute(device, dtype))
            self._placed[device, dtype] = placed
        return placed

    def near(self, device: torch.device, dtype: torch.dtype, memory: Memory) -> KeyValues:
        """Return what `on` returns; if the device is full, in the CPU's memory, ready to copy."""
        if dtype not in self._stored:
            self._compute(device, dtype)
        stored = self._stored[dtype]
        if memory.has_room(device, _count_bytes(stored)):
            return self.on(device, dtype)
        if dtype not in self._pinned:
            self._pinned.add(dtype)
            memory.pin([x for pair in stored.values() for x in pair], self)
        return stored

    @torch.no_grad()
    def _compute(self, device: torch.device, dtype: torch.dtype) -> KeyValues:
        projected = self._project(self.tokens.to(device=device, dtype=dtype))
        self._stored[dtype] = _move(projected, torch.device("cpu"))
        return projected


def _move(values: KeyValues, device: torch.device) -> KeyValues:
    return {block: (k.to(device), v.to(device)) for block, (k, v) in values.items()}


def _count_bytes(values: KeyValues) -> int:
    return sum(x.nbytes for pair in values.values() for x in pair)

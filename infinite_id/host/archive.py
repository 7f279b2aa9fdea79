"""Keeps the text stream of earlier sampling runs in the host's memory, up to a limit.

The text stream does not depend on the identity. So if only the person, a weight, a mask or the
style has changed, each evaluation finds what was kept, and the identity stream runs alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..attention.blocks import Block

Pair = tuple[Tensor, Tensor]
Part = tuple[Hashable, ...]
"""A chunk of a forward within its evaluation: the cond, which forward of the cond, the area."""
GIGABYTE = 10**9


class Archive:
    """Records by key. Those that were used the longest ago make room for new ones.

    Args:
        limit: the most bytes that are kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._run: object = None
        self._records: dict[Hashable, tuple[Record, object]] = {}  # the last used one is last

    def begin(self, run: object) -> None:
        """Note that a sampling run begins. Records that it uses do not make room within it."""
        self._run = run

    def find(self, key: Hashable) -> Record | None:
        """Return the record of this key, which counts as used; None if there is none."""
        record, _ = self._records.pop(key, (None, None))
        if record is not None:
            self._records[key] = record, self._run
        return record

    def make_room(self, size: int) -> bool:
        """Whether `size` bytes fit; records that this run has not used are dropped for them."""
        others = [key for key, (_, run) in self._records.items() if run is not self._run]
        while self.nbytes + size > self.limit:
            if not others:
                return False
            self._drop(others.pop(0))
        return True

    def put(self, key: Hashable, record: Record) -> None:
        self._drop(key)
        self._records[key] = record, self._run
        self.nbytes += record.nbytes

    def _drop(self, key: Hashable) -> None:
        record, _ = self._records.pop(key, (None, None))
        self.nbytes -= 0 if record is None else record.nbytes


@dataclass(eq=False)
class Record:
    """The text stream in one evaluation of the conds, on the CPU.

    Attributes:
        layers: K_t and V_t of each forward's blocks, `(chunks or 1, 1, b, tokens, width)`, by the
            forward's chunks; empty if nobody read them.
        denoised: the prediction for each group of conds, `(latents, c, h, w)`.
        nbytes: the size of all these.
        is_whole: whether everything has found room so far.
    """

    archive: Archive
    layers: dict[tuple[Part, ...], dict[Block, Pair]] = field(default_factory=dict)
    denoised: list[Tensor] = field(default_factory=list)
    nbytes: int = 0
    is_whole: bool = True

    def keep(self, parts: tuple[Part, ...], block: Block, k: Tensor, v: Tensor) -> None:
        """Add copies of a block's K_t and V_t, if there is room for them."""
        if self._fits((k, v)):
            self.layers.setdefault(parts, {})[block] = _copy(k), _copy(v)

    def finish(self, key: Hashable, denoised: Sequence[Tensor]) -> None:
        """Add copies of the predictions, and store the record if all of it has found room."""
        if self._fits(denoised):
            self.denoised = [_copy(x) for x in denoised]
            self.archive.put(key, self)

    def give_up(self) -> None:
        """Keep nothing, now or later."""
        self.layers.clear()
        self.nbytes, self.is_whole = 0, False

    def _fits(self, given: Sequence[Tensor]) -> bool:
        if self.is_whole:
            self.nbytes += sum(x.nbytes for x in given)
            if not self.archive.make_room(self.nbytes):
                self.give_up()
        return self.is_whole


def _copy(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype).copy_(x)

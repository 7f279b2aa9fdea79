"""The text stream within a run: when it runs, and what stands for it when it does not."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from ..attention.blocks import Block
from ..economy import Economy


class Part(Enum):
    """What the text stream does in one evaluation of the conds."""

    RUNS = "runs"
    RECALLED = "is read as it was when it last ran"
    ENDED = "is not read any more"


class Memory:
    """Keys and values of the text stream's self-attention, by block and conds of a forward."""

    def __init__(self) -> None:
        self._stored: dict[tuple[Block, tuple[Any, ...]], tuple[Tensor, Tensor]] = {}
        self._groups: dict[Any, tuple[Any, ...]] = {}  # the conds that each was last kept with

    def keep(self, block: Block, conds: Sequence[Any], k: Tensor, v: Tensor) -> None:
        """Remember `(conds, ...)`, or `(1, ...)` for all of them."""
        group = tuple(conds)
        self._stored[block, group] = k.clone(), v.clone()
        self._groups |= dict.fromkeys(group, group)

    def recall(self, block: Block, conds: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """What `keep` was given, in this order of the conds; as it lies where they are the same."""
        group = tuple(conds)
        if all(self._groups[cond] == group for cond in group):
            return self._stored[block, group]
        kept = [self._recall_one(block, cond) for cond in group]
        return torch.cat([k for k, _ in kept]), torch.cat([v for _, v in kept])

    def _recall_one(self, block: Block, cond: Any) -> tuple[Tensor, Tensor]:
        group = self._groups[cond]
        k, v = self._stored[block, group]
        place = group.index(cond) % len(k)
        return k[place : place + 1], v[place : place + 1]

    def clear(self) -> None:
        self._stored.clear()
        self._groups.clear()


class TextStream:
    """Decides for each evaluation, and predicts the text rows of those in which they do not run.

    Args:
        lowest: the sigma below which nothing is mixed.
    """

    def __init__(self, economy: Economy, lowest: float) -> None:
        self.economy = economy
        self.memory = Memory() if economy.every > 1 else None
        self._lowest = lowest
        self._level, self._sigma = -1, float("nan")
        self._slopes: dict[Hashable, list[Tensor]] = {}

    def plan(self, conds: Hashable, timestep: Tensor) -> Part:
        """What to do now for these conds; another sigma than the last is a new noise level."""
        if self.economy.every == 1 and self._lowest <= 0:
            return Part.RUNS
        sigma = float(timestep[0])
        if sigma < self._lowest:
            return Part.ENDED
        if sigma != self._sigma:
            self._level, self._sigma = self._level + 1, sigma
            if self._is_due() and self.memory is not None:
                self._slopes.clear()
                self.memory.clear()
        return Part.RUNS if self._is_due() or conds not in self._slopes else Part.RECALLED

    def _is_due(self) -> bool:
        return self._level % self.economy.every == 0

    def note(self, conds: Hashable, x: Tensor, sigma: Tensor, denoised: Sequence[Tensor]) -> None:
        """Remember where the text rows are heading; all `(rows, c, h, w)`, sigma `(rows,)`."""
        if self.memory is not None:
            self._slopes[conds] = [(x - one) / _like(sigma, x) for one in denoised]

    def predict(
        self, part: Part, conds: Hashable, x: Tensor, sigma: Tensor, count: int
    ) -> list[Tensor]:
        """The denoised text rows of `count` conds: along the last slope, or left where they are."""
        if part is Part.ENDED:
            return [x] * count
        return [x - slope * _like(sigma, x) for slope in self._slopes[conds]]


def _like(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma.view(-1, *[1] * (x.ndim - 1))

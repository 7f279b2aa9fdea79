"""The stages of the noise levels, and a person's words at each of them.

The timesteps of the model are split into equal segments; the last is the noisiest ("Beyond
Inserting", figure 'stage-based').
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ..words.files import Rows

MIDDLE = Fraction(1, 2)
"""The pooled vector is taken from the words for keys, in the stage at this share of timesteps."""


def find_stage(share: Fraction, count: int) -> int:
    """Return the stage, of `count`, at a share of the timesteps: `floor(count * share)`."""
    return min(int(count * share), count - 1)


@dataclass(frozen=True)
class Words:
    """A person's words.

    Attributes:
        keys, values: `(stages, m, d)` float32 of each text encoder; the cross-attention makes
            its keys and values of them.
    """

    keys: Rows
    values: Rows

    @property
    def stages(self) -> int:
        return len(next(iter(self.keys.values())))

    def at(self, stage: int) -> tuple[Rows, Rows]:
        """Return the rows `(m, d)` of one stage, for keys and for values."""
        return _pick(self.keys, stage), _pick(self.values, stage)

    def mean(self) -> Rows:
        """Return the mean of all stages, keys and values, `(m, d)`: an ordinary embedding.

        It is computed in float64, so that the mean of equal rows is exactly these rows.
        """
        both = {key: torch.cat([x, self.values[key]]) for key, x in self.keys.items()}
        return {key: x.double().mean(dim=0).float() for key, x in both.items()}


def _pick(rows: Rows, stage: int) -> Rows:
    return {key: x[stage] for key, x in rows.items()}


def list_starts(counts: Sequence[int]) -> list[Fraction]:
    """List the shares at which a stage of any of several people begins, rising from 0."""
    return sorted({Fraction(stage, count) for count in counts for stage in range(count)})


@dataclass(frozen=True, eq=False)
class Contexts:
    """What the cross-attention reads at each stage of a prompt.

    Attributes:
        starts: the shares of the timesteps at which the stages begin, rising from 0.
        pairs: for each start, the contexts `(1, l, width)` for keys and for values.
        mean: the context without stages, as the conditioning has it.
    """

    starts: tuple[Fraction, ...]
    pairs: tuple[tuple[Tensor, Tensor], ...]
    mean: Tensor

    def at(self, share: Fraction) -> tuple[Tensor, Tensor]:
        """Return the contexts for keys and values at a share of the timesteps."""
        return self.pairs[sum(start <= share for start in self.starts) - 1]

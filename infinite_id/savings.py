"""Doing without parts of a step: what a user may trade for time."""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Savings:
    """Savings that change the picture a little; the defaults save nothing.

    Attributes:
        every: the text stream runs at every n-th noise level. In between the identity stream
            reads the keys and values of the last time, and the text's latents go on along the
            last prediction.
        until: the share of the sampling 0..1 after which nothing is mixed and the text stream
            stops.
        shared: the text stream has no latents of its own and sees the identity stream's in each
            forward. For nodes that cut the batch into pieces; nothing else is saved then.
        guided: whether the text stream runs for the negative conds. If not, its own picture goes
            without guidance and the negative rows of the identity stream are not mixed.
        deep: all of the UNet runs at every n-th noise level. In between its outermost level runs
            alone, on the deep features of the last time (DeepCache, arXiv 2312.00858, 3.2); both
            streams. `every` then counts the noise levels at which all of it runs.
        least: a sampling of fewer steps saves nothing.
    """

    every: int = 1
    until: float = 1.0
    guided: bool = True
    shared: bool = False
    deep: int = 1
    least: int = 0


FEW = 8
"""The most steps that models for few steps (Turbo, Lightning, LCM) are made for."""


class Preset(Enum):
    """Savings by name; those that leave out parts of a step do not touch samplings of few steps."""

    CUSTOM = "custom"
    FAITHFUL = "faithful"
    FAST = "fast"
    DRAFT = "draft"


PRESETS = {
    Preset.FAITHFUL: Savings(),
    Preset.FAST: Savings(deep=2, least=FEW + 1),
    Preset.DRAFT: Savings(deep=3, least=FEW + 1),
}

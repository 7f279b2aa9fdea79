"""Savings: parts of a step that the user may leave out to save time."""

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
        shared: the text stream has no latents of its own. It sees the identity stream's in each
            forward. Nodes that cut the batch into pieces need this; nothing else is saved then.
        guided: whether the text stream runs for the negative conds. If not, its own picture has no
            guidance, and the negative rows of the identity stream are not mixed.
        deep: all of the UNet runs at every n-th noise level. In between its outermost level runs
            alone, on the deep features of the last time (DeepCache, arXiv 2312.00858, 3.2), for
            both streams. `every` then counts only the noise levels at which all of the UNet runs.
        least: a sampling of fewer steps than this saves nothing.
        change: if above 0, all of the UNet runs when its deep features have changed by more than
            this, relative to their size, as fast as they last changed; `deep` is then the most
            noise levels from one time to the next.
        agree: the cosine of the predictions for the positive and the negative prompt above which
            the negative one is left out in the rest of the sampling; 1: never.
        remember: the gigabytes of the host's memory in which the text stream of earlier runs is
            kept. It is recalled if only people, weights, masks or styles are others.
    """

    every: int = 1
    until: float = 1.0
    guided: bool = True
    shared: bool = False
    deep: int = 1
    least: int = 0
    change: float = 0.0
    agree: float = 1.0
    remember: float = 0.0


FEW = 8
"""The most steps that models for few steps (Turbo, Lightning, LCM) are made for."""


class Preset(Enum):
    """Savings by name. Those that leave out parts of a step leave samplings of few steps alone."""

    CUSTOM = "custom"
    FAITHFUL = "faithful"
    FAST = "fast"
    DRAFT = "draft"


PRESETS = {
    Preset.FAITHFUL: Savings(),
    Preset.FAST: Savings(deep=2, least=FEW + 1),
    Preset.DRAFT: Savings(deep=3, least=FEW + 1),
}

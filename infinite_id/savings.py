"""Doing without parts of the text stream: what a user may trade for time."""

from dataclasses import dataclass


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
    """

    every: int = 1
    until: float = 1.0
    guided: bool = True
    shared: bool = False

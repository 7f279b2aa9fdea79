"""Parts of a picture, for people beside each other."""

import torch
from torch import Tensor

SIDE = 512
"""Side of a mask in pixels. Masks may have any resolution; this one gives smooth soft borders."""


def column(number: int, columns: int, softness: float) -> Tensor:
    """One of several equal columns of a picture.

    Neighbours fade into each other around their common border, so all columns together are 1
    everywhere.

    Args:
        number: which column, from 1 on the left.
        columns: how many there are.
        softness: width of the fading, as a share of a column's width, 0..1.

    Returns:
        A mask `(1, 512, 512)` in 0..1.
    """
    place = (torch.arange(SIDE, dtype=torch.float32) + 0.5) / SIDE * columns  # 0..columns
    width = max(softness, columns / SIDE)  # a hard border is one pixel wide
    rising = _ramp(place - (number - 1), width) if number > 1 else 1
    falling = _ramp(place - number, width) if number < columns else 0
    return (rising - falling + torch.zeros(SIDE)).expand(1, SIDE, SIDE).contiguous()


def _ramp(distance: Tensor, width: float) -> Tensor:
    """Rise from 0 to 1 over `width`, centred at distance 0."""
    return (distance / width + 0.5).clamp(0, 1)

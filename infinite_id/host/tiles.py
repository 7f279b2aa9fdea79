"""Where in the picture a forward's rows lie."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attention.mask import Area
from .forward import Forward


def find_areas(forward: Forward) -> list[Area | None]:
    """For each chunk, the part of the evaluation's latent that it shows; None for all of it.

    The host crops conds to their areas. A node around the model may cut tiles out of these, and
    says nothing: such a tile is looked for in the latent.

    Raises:
        ValueError: if a tile is not found.
    """
    rows = len(forward.x) // len(forward.conds)
    size = (forward.x.shape[-2], forward.x.shape[-1])
    whole = (forward.step.x.shape[-2], forward.step.x.shape[-1])
    areas = []
    for chunk, cond in enumerate(forward.conds):
        area = cond.area
        if size != (whole if area is None else _clip(area, whole)):
            area = _find_tile(forward.x[chunk * rows], forward.step.x[forward.first])
        areas.append(area)
    return areas


def _clip(area: Area, whole: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an area's part within the latent."""
    return min(area.height, whole[0] - area.top), min(area.width, whole[1] - area.left)


def _find_tile(tile: Tensor, latent: Tensor) -> Area:
    """Where a tile `(c, h, w)` was cut out of a latent `(c, H, W)`, to the last bit."""
    height, width = tile.shape[-2:]
    corner = (latent == tile[:, :1, :1]).all(dim=0)
    found = [
        Area(height, width, top, left)
        for top, left in torch.nonzero(corner).tolist()
        if torch.equal(latent[:, top : top + height, left : left + width], tile)
    ]
    if len(found) != 1:
        raise ValueError(
            f"Apply Infinite-ID: another node cuts the picture into tiles of {width}x{height} of "
            "the latent, which are not found in it, so a mask cannot follow. Take the mask or that "
            "node out."
        )
    return found[0]

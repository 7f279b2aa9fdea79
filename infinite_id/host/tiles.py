"""Where in the picture a forward's rows lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..attention.mask import Area


def find_areas(
    rows: Sequence[Tensor], areas: Sequence[Area | None], latent: Tensor
) -> list[Area | None]:
    """Find the part of the latent that each chunk of a forward shows; None for all of it.

    The host crops conds to their areas. A node around the model may cut tiles out of these, or move
    their contents, without saying so. So a tile is searched for in the latent.

    Args:
        rows: the first row of each chunk, `(c, h, w)`.
        areas: each chunk's part of the latent, as the host knows it.
        latent: `(c, H, W)`. The rows are parts of it.

    Raises:
        ValueError: if a tile is not found, or a chunk's contents have been moved.
    """
    return [_find(row, area, latent) for row, area in zip(rows, areas, strict=True)]


def _find(row: Tensor, area: Area | None, latent: Tensor) -> Area | None:
    given = _cut(latent, area)
    if row.shape != given.shape:
        return _find_tile(row, latent)
    if _is_moved(row, given):
        raise ValueError(
            "Apply Infinite-ID: another node moves what is in the picture before the model sees "
            "it, so a mask cannot follow. Take the mask or that node out."
        )
    return area


def _is_moved(row: Tensor, given: Tensor) -> bool:
    """Whether the row has the same values in other places. Changed values do not count as moved."""
    if torch.equal(row, given):
        return False
    ours, theirs = (x.flatten().sort().values for x in (row, given))
    return torch.equal(ours, theirs)


def _cut(latent: Tensor, area: Area | None) -> Tensor:
    if area is None:
        return latent
    return latent[:, area.top : area.top + area.height, area.left : area.left + area.width]


def _find_tile(tile: Tensor, latent: Tensor) -> Area:
    """Find the one place of a latent that equals a tile bit by bit."""
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

"""Where in the picture a forward's rows lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..attention.mask import Area


def find_areas(
    rows: Sequence[Tensor], areas: Sequence[Area | None], latent: Tensor
) -> list[Area | None]:
    """For each chunk of a forward, the part of the latent that it shows; None for all of it.

    The host crops conds to their areas. A node around the model may cut tiles out of these, and
    says nothing: such a tile is looked for in the latent.

    Args:
        rows: the first row of each chunk, `(c, h, w)`.
        areas: each chunk's part of the latent, as the host knows it.
        latent: `(c, H, W)`. The rows are parts of it.

    Raises:
        ValueError: if a tile is not found.
    """
    whole = (latent.shape[-2], latent.shape[-1])
    return [
        area if tuple(row.shape[-2:]) == _clip(area, whole) else _find_tile(row, latent)
        for row, area in zip(rows, areas, strict=True)
    ]


def _clip(area: Area | None, whole: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an area's part within the latent."""
    if area is None:
        return whole
    return min(area.height, whole[0] - area.top), min(area.width, whole[1] - area.left)


def _find_tile(tile: Tensor, latent: Tensor) -> Area:
    """Where a tile was cut out of a latent, to the last bit."""
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

"""A person's mask at the resolution of a layer's tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate


class Area(NamedTuple):
    """The part of the latent that a cond covers, in latent pixels."""

    height: int
    width: int
    top: int
    left: int


def mask_tokens(
    mask: Tensor, latent: tuple[int, int], area: Area | None, grid: tuple[int, int]
) -> Tensor:
    """Resize a mask to a layer's tokens.

    The mask goes to latent resolution first and is then averaged down, so a token outside the
    mask's latent pixels gets exactly 0.

    Args:
        mask: `(batch, height, width)` in 0..1, at any resolution.
        latent: height and width of the whole latent.
        area: the crop of the latent that is being denoised; None for all of it.
        grid: height and width of the layer's tokens.

    Returns:
        `(batch, grid height * grid width, 1)`.
    """
    pixels = _resize(mask, latent)
    if area is not None:
        bottom, right = area.top + area.height, area.left + area.width
        pixels = pixels[..., area.top : bottom, area.left : right]
    return rearrange(interpolate(pixels, grid, mode="area"), "b 1 h w -> b (h w) 1")


def cut_mask(mask: Tensor, latent: tuple[int, int], axis: int, places: Sequence[int]) -> Tensor:
    """Resize a mask to the latent's resolution and take some of its rows or columns.

    Args:
        mask: `(batch, height, width)` in 0..1, at any resolution.
        latent: height and width of the whole latent.
        axis: 1 for rows of pixels, 2 for columns.
        places: indices of the rows or columns, in latent pixels.

    Returns:
        `(batch, ...)`, `len(places)` long along the axis.
    """
    index = torch.tensor(places, device=mask.device)
    return _resize(mask, latent)[:, 0].index_select(axis, index)


def _resize(mask: Tensor, latent: tuple[int, int]) -> Tensor:
    """Return `(batch, 1, *latent)`. Each pixel is the average of its part of the mask."""
    pixels = mask[:, None]
    return pixels if pixels.shape[-2:] == latent else interpolate(pixels, latent, mode="area")

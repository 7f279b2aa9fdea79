"""A person's mask at the resolution of a layer's tokens."""

from typing import NamedTuple

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
    pixels = mask[:, None]
    if pixels.shape[-2:] != latent:
        pixels = interpolate(pixels, latent, mode="area")
    if area is not None:
        bottom, right = area.top + area.height, area.left + area.width
        pixels = pixels[..., area.top : bottom, area.left : right]
    return rearrange(interpolate(pixels, grid, mode="area"), "b 1 h w -> b (h w) 1")

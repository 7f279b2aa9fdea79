"""Augmentation of a headshot, with its masks (StableIdentity, section 4.1, and its code).

The random choices depend on the generator alone. The face vector comes from the photo or from its
mirror image; all other changes apply to the target and its masks only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import functional as colours  # the host needs it, too

_KEPT = 0.75
"""Share of the side that a crop keeps."""
_SMALLEST = 0.5
_COLOUR, _HUE, _ASPECT = 0.2, 0.01, 0.1


@dataclass(frozen=True)
class Jitter:
    """Factors for brightness, contrast and saturation, and a rotation of the hue in turns."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


@dataclass(frozen=True)
class Augmentation:
    """The changes to a square target, in the order in which they are made.

    Attributes:
        mirrored: left to right; the face vector is then that of the mirror image.
        crop: top and left of the part that is kept; it is scaled back to the whole side.
        size: height and width to which it is shrunk.
        place: top and left where it is put on black.
    """

    mirrored: bool
    jitter: Jitter
    crop: tuple[int, int]
    size: tuple[int, int]
    place: tuple[int, int]


def draw_augmentation(side: int, random: Generator) -> Augmentation:
    """Draw the changes to a target whose side has `side` pixels."""
    room = side - crop_side(side)
    height = int(side * _uniform(_SMALLEST, 1.0, random))
    width = min(int(height * _uniform(1 - _ASPECT, 1 + _ASPECT, random)), side)
    factors = {
        name: _uniform(1 - _COLOUR, 1 + _COLOUR, random)
        for name in ("brightness", "contrast", "saturation")
    }
    return Augmentation(
        mirrored=_uniform(0, 1, random) < 0.5,
        jitter=Jitter(**factors, hue=_uniform(-_HUE, _HUE, random)),
        crop=(_index(room + 1, random), _index(room + 1, random)),
        size=(height, width),
        place=(_index(side - height + 1, random), _index(side - width + 1, random)),
    )


def crop_side(side: int) -> int:
    return int(side * _KEPT)


def _uniform(low: float, high: float, random: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=random))


def _index(count: int, random: Generator) -> int:
    return int(torch.randint(count, (), generator=random))


def augment(
    image: Tensor, face: Tensor, hair: Tensor, how: Augmentation
) -> tuple[Tensor, Tensor, Tensor]:
    """Change a target `(3, s, s)` in 0..1 and its masks `(1, s, s)`; colours of the target only."""
    planes = torch.cat([change_colours(image, how.jitter), face, hair])
    if how.mirrored:
        planes = planes.flip(-1)
    side = planes.shape[-1]
    (top, left), kept = how.crop, crop_side(side)
    whole = _scale(planes[:, top : top + kept, left : left + kept], (side, side))
    small = _scale(whole, how.size)
    placed = torch.zeros_like(planes)
    (top, left), (height, width) = how.place, how.size
    placed[:, top : top + height, left : left + width] = small
    moved, face, hair = placed.clamp(0, 1).split([3, 1, 1])
    return moved, face, hair


def change_colours(image: Tensor, jitter: Jitter) -> Tensor:
    """Jitter the colours of `(3, h, w)` in 0..1."""
    changed = colours.adjust_brightness(image, jitter.brightness)
    changed = colours.adjust_contrast(changed, jitter.contrast)
    changed = colours.adjust_saturation(changed, jitter.saturation)
    return colours.adjust_hue(changed, jitter.hue)


def _scale(planes: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(planes[None], size, mode="bicubic", align_corners=True)[0]

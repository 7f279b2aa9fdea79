"""Renderings of one drawing: the same lines and places, in four media.

All take a `Drawing` and return `(128, 128, 3)` float32 in 0..255.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .places import out_of_focus
from .scene import Scene

Image = NDArray[np.float32]
SIDE = 128
PAPER = np.array([1.0, 0.995, 0.98], np.float32)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Drawing:
    """`subject` is multiplied by `alpha`; `light` is 1 where the surface has its own colour."""

    subject: Image  # (128, 128, 3)
    alpha: Image  # (128, 128, 1)
    edges: Image  # (128, 128, 1), 0..1: the drawing's lines
    light: Image  # (128, 128, 1)
    place: NDArray[np.uint8]  # (128, 128, 3)
    scene: Scene

    def over(self, place: Image, light: Image) -> Image:
        return self.subject * light + place * (1 - self.alpha)


def photo(drawing: Drawing) -> Image:
    """Soft light, the place out of focus, a little grain."""
    image = drawing.over(np.float32(1) * out_of_focus(drawing.place), drawing.light)
    return image + _shifted("grain", drawing.scene.seed) * 2


def comic(drawing: Drawing) -> Image:
    """Flat colours in two tones, black lines, dots in the shadow."""
    tone = np.where(drawing.light < 0.9, np.float32(0.74), np.float32(1.06))
    place = np.floor(drawing.place / np.float32(48)) * 56
    dots = _tiles("dots")
    shaded = drawing.over(place * (1 - 0.25 * dots), tone)
    grey = shaded @ LUMA
    image = grey[..., None] + (shaded - grey[..., None]) * 1.35
    return image * (1 - np.clip(1.6 * drawing.edges, 0, 1))


def pencil(drawing: Drawing) -> Image:
    """Grey lines and hatching on paper; the place is only hinted at."""
    lit = drawing.over(drawing.place * np.float32(0.45) + 140, drawing.light)
    tone = (lit @ LUMA)[..., None] / 255
    paper = 244 + _shifted("grain", drawing.scene.seed) * 3
    hatch = _tiles("hatch") * np.clip(0.86 - tone, 0, 0.75) + 0.3 * np.clip(0.7 - tone, 0, 1)
    lines = np.clip(0.9 * drawing.edges, 0, 0.85)
    return paper * np.clip(1 - hatch, 0.15, 1) * (1 - lines) * PAPER


def watercolor(drawing: Drawing) -> Image:
    """Light, uneven washes that run, with darker rims, on white paper."""
    seed = drawing.scene.seed
    wash = _shifted("cloud", seed)
    lit = drawing.over(np.float32(1) * drawing.place, 0.5 + 0.5 * drawing.light)
    run = _run(lit, _shifted("cloud", seed + 1)[..., 0], _shifted("cloud", seed + 2)[..., 0])
    thin = np.clip(0.78 + 0.1 * wash, 0.5, 1)
    image = 255 - (255 - run) * thin - 36 * drawing.edges
    image += 3 * _shifted("grain", seed + 3)
    border = np.clip((_distance_to_border() + 3 * wash) / 5, 0, 1)
    return 250 + (image - 250) * border


STYLES: dict[str, Callable[[Drawing], Image]] = {
    "photo": photo,
    "comic": comic,
    "pencil": pencil,
    "watercolor": watercolor,
}


def _run(image: Image, dx: Image, dy: Image) -> Image:
    """Moves every pixel a little, as colour does on wet paper."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    moved: Any = cv2.remap(
        image.astype(np.float32),
        x + 0.9 * dx,
        y + 0.9 * dy,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return moved


@cache
def _texture(kind: str) -> Image:
    """Noise of spread one, `(256, 256, 1)`, that repeats at its edges."""
    noise = np.random.default_rng(5).standard_normal((256, 256)).astype(np.float32)
    radius = {"grain": 0.6, "cloud": 7.0}[kind]
    smooth = cv2.GaussianBlur(np.tile(noise, (3, 3)), (0, 0), radius)[256:512, 256:512]
    return (smooth / smooth.std())[..., None]


def _shifted(kind: str, seed: int) -> Image:
    x, y = np.random.default_rng([seed, 5]).integers(SIDE, size=2)
    return _texture(kind)[y : y + SIDE, x : x + SIDE]


@cache
def _tiles(kind: str) -> Image:
    """Patterns of period 4: alike in every 8x8 pixels, which are one latent."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    if kind == "hatch":
        waves = np.sin((x + y) * (2 * np.pi / 4))
    else:
        waves = np.sin(x * np.pi / 2 + 0.8) * np.sin(y * np.pi / 2 + 0.8)
    return np.clip(waves + 0.5, 0, 1)[..., None].astype(np.float32)


@cache
def _distance_to_border() -> Image:
    steps = np.minimum(np.arange(SIDE), np.arange(SIDE)[::-1]).astype(np.float32)
    return np.minimum.outer(steps, steps)[..., None]

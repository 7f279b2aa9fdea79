"""Renders one drawing in seven media, with the same lines and places.

All take a `Drawing` and return `(256, 256, 3)` float32 in 0..255.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .canvas import SIDE
from .places import out_of_focus
from .scene import Scene

Image = NDArray[np.float32]
PAPER = np.array([1.0, 0.995, 0.98], np.float32)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Drawing:
    """`subject` is multiplied by `alpha`; at `light` 1 the surface has its own colour."""

    subject: Image  # (256, 256, 3)
    alpha: Image  # (256, 256, 1)
    edges: Image  # (256, 256, 1), 0..1: the drawing's lines
    light: Image  # (256, 256, 1)
    place: NDArray[np.uint8]  # (256, 256, 3)
    scene: Scene

    def over(self, place: Image, light: Image | np.float32) -> Image:
        return self.subject * light + place * (1 - self.alpha)


def photo(drawing: Drawing) -> Image:
    """Soft light, the place out of focus and a little darker than the person."""
    image = drawing.over(np.float32(0.94) * out_of_focus(drawing.place), drawing.light)
    return image * _vignette(0.16)


def comic(drawing: Drawing) -> Image:
    """Flat, loud colours in two tones, black lines, dots on the place."""
    tone = 0.72 + 0.34 * _step(drawing.light, 0.83, 0.02)
    place = np.floor(drawing.place / np.float32(40)) * 46 + 10
    image = _saturate(drawing.over(place * (1 - 0.3 * _tiles("dots")), tone), 1.5)
    return image * (1 - np.clip(2.2 * drawing.edges, 0, 1))


def pencil(drawing: Drawing) -> Image:
    """Grey lines and hatching on paper; the place is only hinted at."""
    lit = drawing.over(drawing.place * np.float32(0.4) + 150, drawing.light)
    tone = 0.2 + 0.8 * (lit @ LUMA)[..., None] / 255
    hatch = _tiles("hatch") * np.clip(0.84 - tone, 0, 0.6) * 0.85
    hatch += _tiles("cross") * np.clip(0.42 - tone, 0, 0.4) * 0.9 + 0.3 * np.clip(0.7 - tone, 0, 1)
    lines = np.clip(1.1 * drawing.edges, 0, 0.86)
    return np.float32(246) * np.clip(1 - hatch, 0.14, 1) * (1 - lines) * PAPER


def watercolor(drawing: Drawing) -> Image:
    """Light, uneven washes that run, with darker rims, on white paper."""
    seed = drawing.scene.seed
    wash = _shifted("cloud", seed)
    lit = drawing.over(np.float32(1) * drawing.place, 0.5 + 0.5 * drawing.light)
    run = _run(lit, _shifted("ripple", seed + 1), _shifted("ripple", seed + 2), 0.9)
    thin = np.clip(0.84 + 0.09 * wash, 0.55, 1)
    image = 255 - (255 - _saturate(run, 1.2)) * thin - 34 * drawing.edges
    border = np.clip((_distance_to_border() - 4 + 6 * _shifted("cloud", seed + 3)) / 8, 0, 1)
    return 252 + (image - 252) * border


def oil(drawing: Drawing) -> Image:
    """Thick dabs of warm, dark colours on a coarse canvas."""
    lit = drawing.over(drawing.place * np.float32(0.72), 1.25 * drawing.light - 0.22)
    seed = drawing.scene.seed
    moved = _run(lit, _shifted("ripple", seed + 1), _shifted("ripple", seed + 2), 0.7)
    dabs = _dabs(np.clip(moved, 0, 255))
    warm = _saturate(dabs, 1.18) * np.array([1.04, 0.92, 0.72], np.float32) + (10, 4, 0)
    return warm * (0.92 + 0.13 * _tiles("weave")) * _vignette(0.42)


def ukiyoe(drawing: Drawing) -> Image:
    """A woodcut: flat, faded colours within thin indigo lines, a blue band above, on tan paper."""
    place = np.floor(drawing.place / np.float32(64)) * 62 + 40
    down = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None]
    band = np.clip(0.9 - down / 0.36, 0, 1)
    place = place * (1 - band) + np.array([16, 58, 140], np.float32) * band
    place *= 1 - 0.05 * _tiles("grain")
    image = _saturate(drawing.over(place, np.float32(1.12)), 0.66)
    image = (30 + image * 0.95) * np.array([0.98, 0.91, 0.74], np.float32)
    lines = np.clip(1.7 * drawing.edges, 0, 0.92)
    return image * (1 - lines) + np.array([34, 40, 74], np.float32) * lines


def animation(drawing: Drawing) -> Image:
    """Bright, clean colours with violet shadows and thin brown lines; a place full of light."""
    lit = _step(drawing.light, 0.83, 0.03)
    shade = np.array([0.8, 0.7, 0.86], np.float32) * (1 - lit) + np.float32(1.08) * lit
    soft: Any = cv2.GaussianBlur(drawing.place, (0, 0), 1.2)
    place = _saturate(np.float32(255) - (255 - soft.astype(np.float32)) * 0.66, 1.3)
    image = _saturate(drawing.over(place, shade), 1.22) * 1.04 + 8
    lines = np.clip(1.0 * drawing.edges, 0, 0.75)
    image = image * (1 - lines) + np.array([92, 40, 52], np.float32) * lines
    glare: Any = cv2.GaussianBlur(np.clip(image - 175, 0, 80).astype(np.float32), (0, 0), 7)
    return image + 0.5 * glare


STYLES: dict[str, Callable[[Drawing], Image]] = {
    "photo": photo,
    "pencil": pencil,
    "comic": comic,
    "watercolor": watercolor,
    "oil": oil,
    "ukiyoe": ukiyoe,
    "animation": animation,
}


def _step(values: Image, at: float, half: float) -> Image:
    """Return 0 below `at` and 1 above it, with a short ramp between."""
    return np.clip((values - (at - half)) / (2 * half), 0, 1).astype(np.float32)


def _saturate(image: Image, factor: float) -> Image:
    grey: Image = (image @ LUMA)[..., None]
    return grey + (image - grey) * np.float32(factor)


def _run(image: Image, dx: Image, dy: Image, far: float) -> Image:
    """Moves every pixel a little, as colour does on wet paper."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    moved: Any = cv2.remap(
        image.astype(np.float32),
        x + np.float32(far) * dx[..., 0],
        y + np.float32(far) * dy[..., 0],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return moved


def _dabs(image: Image) -> Image:
    """Return the mean of the most uniform of four squares beside each pixel (Kuwahara 1976)."""
    radius = 2
    grey = image @ LUMA
    size = (radius + 1, radius + 1)
    best = np.full(grey.shape, np.inf, np.float32)
    result = image
    for anchor in ((0, 0), (0, radius), (radius, 0), (radius, radius)):
        mean: Any = cv2.blur(grey, size, anchor=anchor)
        spread = cv2.blur(grey * grey, size, anchor=anchor) - mean * mean
        colour: Any = cv2.blur(image, size, anchor=anchor)
        evener = spread < best
        best = np.where(evener, spread, best)
        result = np.where(evener[..., None], colour, result)
    return result


@cache
def _texture(kind: str) -> Image:
    """Return noise of standard deviation 1, `(512, 512, 1)`, that continues over its edges."""
    noise = np.random.default_rng(5).standard_normal((512, 512)).astype(np.float32)
    radius = {"ripple": 4.0, "cloud": 14.0}[kind]
    smooth = cv2.GaussianBlur(np.tile(noise, (3, 3)), (0, 0), radius)[512:1024, 512:1024]
    return (smooth / smooth.std())[..., None]


def _shifted(kind: str, seed: int) -> Image:
    x, y = np.random.default_rng([seed, 5]).integers(SIDE, size=2)
    return _texture(kind)[y : y + SIDE, x : x + SIDE]


@cache
def _tiles(kind: str) -> Image:
    """Return a pattern of period 8, 0..1: it is the same in every latent, which is 8x8 pixels."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) * np.float32(2 * np.pi / 8)
    waves = {
        "hatch": lambda: np.sin(x + y) + 0.5,
        "cross": lambda: np.sin(x - y) + 0.5,
        "dots": lambda: 2 * np.sin(x + 0.8) * np.sin(y + 0.8) + 0.2,
        "weave": lambda: 0.5 + 0.25 * (np.sin(2 * x) * np.cos(y) + np.sin(2 * y) * np.cos(x)),
        "grain": lambda: np.sin(y + 0.6 * np.sin(x)) + 0.5,
    }
    return np.clip(waves[kind](), 0, 1)[..., None].astype(np.float32)


@cache
def _vignette(strength: float) -> Image:
    """Return a factor that falls towards the corners."""
    along = np.linspace(-1, 1, SIDE, dtype=np.float32)
    far = np.add.outer(along**2, along**2) / 2
    return (1 - strength * far**1.2).astype(np.float32)[..., None]


@cache
def _distance_to_border() -> Image:
    steps = np.minimum(np.arange(SIDE), np.arange(SIDE)[::-1]).astype(np.float32)
    return np.minimum.outer(steps, steps)[..., None]

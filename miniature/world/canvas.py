"""Shapes in a moving frame, drawn with soft edges into an RGBA picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Paint = NDArray[np.float64] | Sequence[float]

SIDE = 256  # of every picture, in pixels

_BITS = 4  # cv2 takes fixed-point coordinates with this many binary places


@dataclass(frozen=True)
class Frame:
    """Own units -> pixels: `matrix` turns and scales, `origin` is the place of (0, 0)."""

    matrix: Points
    origin: Points

    @classmethod
    def at(cls, x: float, y: float, scale: float, angle: float) -> Frame:
        c, s = np.cos(angle) * scale, np.sin(angle) * scale
        return cls(np.array([[c, -s], [s, c]]), np.array([x, y]))

    @property
    def scale(self) -> float:
        return float(np.hypot(*self.matrix[:, 0]))

    def place(self, points: Points) -> Points:
        return points @ self.matrix.T + self.origin

    def inverse(self, points: Points) -> Points:
        return (points - self.origin) @ np.linalg.inv(self.matrix).T


class Canvas:
    """`pixels` is `(side, side, 4)` uint8, RGBA with the colours multiplied by the alpha."""

    def __init__(self, pixels: NDArray[np.uint8], frame: Frame) -> None:
        self.pixels: Any = pixels
        self.frame = frame

    def fill(self, points: Points, colour: Paint) -> None:
        cv2.fillPoly(self.pixels, [self._fixed(points)], _rgba(colour), cv2.LINE_AA, _BITS)

    def line(self, points: Points, colour: Paint, width: float) -> None:
        """An open line; the width is in the frame's units."""
        thickness = max(1, round(width * self.frame.scale))
        placed = [self._fixed(points)]
        cv2.polylines(self.pixels, placed, False, _rgba(colour), thickness, cv2.LINE_AA, _BITS)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Paint) -> None:
        self.fill(ellipse(x, y, rx, ry), colour)

    def glow(
        self, x: float, y: float, rx: float, ry: float, colour: Paint, strength: float
    ) -> None:
        """Paint a soft spot on earlier paint; at the radii it has e^-1 of its strength."""
        cx, cy = self.frame.place(np.array([x, y]))
        window, (xs, ys) = self._window(cx, cy, 2 * rx, 2 * ry)
        wide, high = rx * self.frame.scale, ry * self.frame.scale
        across, down = np.exp(-(((xs - cx) / wide) ** 2)), np.exp(-(((ys - cy) / high) ** 2))
        self._blend(window, strength * np.outer(down, across), colour)

    def shadow(self, points: Points, colour: Paint, strength: float, blur: float) -> None:
        """Paint a shape with blurred edges on earlier paint."""
        placed, spread = self.frame.place(points), blur * self.frame.scale
        low, high = placed.min(0) / self.frame.scale, placed.max(0) / self.frame.scale
        (cx, cy), (rx, ry) = (low + high) / 2 * self.frame.scale, (high - low) / 2 + 2 * blur
        window, (xs, ys) = self._window(cx, cy, rx, ry)
        if not (len(xs) and len(ys)):
            return
        mask: Any = np.zeros((len(ys), len(xs)), np.uint8)
        corners = np.rint((placed - (xs[0], ys[0])) * 2**_BITS).astype(np.int32)
        cv2.fillPoly(mask, [corners], (255,), cv2.LINE_AA, _BITS)
        soft: Any = cv2.GaussianBlur(mask, (0, 0), spread)
        self._blend(window, soft * np.float32(strength / 255), colour)

    def _window(
        self, cx: float, cy: float, rx: float, ry: float
    ) -> tuple[tuple[slice, slice], tuple[Points, Points]]:
        """Return the pixels around a place, and their coordinates; radii in the frame's units."""
        height, width = self.pixels.shape[:2]
        ranges = [
            (max(0, int(c - r * self.frame.scale)), min(end, int(c + r * self.frame.scale) + 2))
            for c, r, end in ((cx, rx, width), (cy, ry, height))
        ]
        (x0, x1), (y0, y1) = ranges
        return (slice(y0, y1), slice(x0, x1)), (np.arange(x0, x1), np.arange(y0, y1))

    def _blend(self, window: tuple[slice, slice], share: Points, colour: Paint) -> None:
        area = self.pixels[window]
        mask = share.astype(np.float32)[..., None]
        paint = np.asarray(colour, np.float32) * (area[..., 3:] / np.float32(255))
        area[..., :3] = np.clip(area[..., :3] * (1 - mask) + paint * mask, 0, 255)

    def _fixed(self, points: Points) -> NDArray[np.int32]:
        return np.rint(self.frame.place(points) * 2**_BITS).astype(np.int32)


def _rgba(colour: Paint) -> tuple[float, float, float, float]:
    r, g, b = (min(255.0, max(0.0, float(c))) for c in colour)
    return r, g, b, 255.0


_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    return _CIRCLE * (rx, ry) + (x, y)


def curve(points: Sequence[tuple[float, float]], steps: int = 6) -> Points:
    """Return a smooth line through points (Catmull-Rom), with `steps` pieces between two points."""
    p = np.array(points, float)
    padded = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    windows = np.stack([padded[:-3], padded[1:-2], padded[2:-1], padded[3:]], axis=1)
    return np.vstack([(_basis(steps) @ windows).reshape(-1, 2), p[-1:]])


@cache
def _basis(steps: int) -> Points:
    """Return `(steps, 4)`: weights of four adjacent points for places between the middle two."""
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    columns = -t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2
    return np.hstack(columns) / 2


def mirrored(points: Points) -> Points:
    """Return a left half, top to bottom, closed by its mirror image on the right."""
    return np.vstack([points, (points * (-1, 1))[::-1]])


def mix(a: Paint, b: Paint, share: float) -> NDArray[np.float64]:
    return np.asarray(a, float) * (1 - share) + np.asarray(b, float) * share


def tint(colour: Paint, factor: float) -> NDArray[np.float64]:
    """Return a colour that is darker below factor 1, and nearer to white above it."""
    if factor <= 1:
        return np.asarray(colour, float) * factor
    return mix(colour, (255, 255, 255), factor - 1)

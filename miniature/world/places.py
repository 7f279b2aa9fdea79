"""Backgrounds, drawn in the unit square; y grows downwards, the horizon is near a half."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Frame, Paint, Points, ellipse, mix
from .scene import COLOURS, Scene

SIDE = 128
Random = np.random.Generator


def draw_place(scene: Scene) -> NDArray[np.uint8]:
    """`(128, 128, 3)` RGB."""
    rng = np.random.default_rng([scene.seed, 4])
    canvas = Canvas(np.zeros((SIDE, SIDE, 4), np.uint8), Frame.at(0.0, 0.0, SIDE, 0.0))
    if scene.place == "wall":
        _wall(canvas, np.array(COLOURS[scene.wall]))
    else:
        PLACES[scene.place](canvas, rng)
    return canvas.pixels[..., :3]


def _box(canvas: Canvas, x0: float, y0: float, x1: float, y1: float, colour: Paint) -> None:
    canvas.fill(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), colour)


def _fade(canvas: Canvas, top: Paint, bottom: Paint, until: float = 1.0) -> None:
    """A vertical gradient from the top edge down to `until`."""
    rows = round(SIDE * until)
    share = np.linspace(0, 1, rows)[:, None]
    ramp = np.asarray(top, float) * (1 - share) + np.asarray(bottom, float) * share
    canvas.pixels[:rows, :, :3] = ramp[:, None].astype(np.uint8)


def _ridge(canvas: Canvas, rng: Random, y: float, height: float, colour: Paint, peaks: int) -> None:
    """A jagged or rolling line from edge to edge, filled down to the bottom."""
    x = np.linspace(-0.05, 1.05, peaks)
    heights = y - height * rng.random(peaks) * (np.arange(peaks) % 2)
    line = np.stack([x, heights], axis=1)
    canvas.fill(np.vstack([line, [(1.05, 1), (-0.05, 1)]]), colour)


def _wall(canvas: Canvas, colour: Points) -> None:
    soft = mix(colour, (235, 232, 228), 0.25)
    _fade(canvas, soft, soft * 0.86)


def _forest(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (96, 148, 96), (52, 92, 56))
    for depth in (0.6, 1.0):
        for x in rng.random(6):
            wide = 0.03 + 0.05 * rng.random() * depth
            trunk = mix((120, 140, 100), (78, 52, 36), depth)
            _box(canvas, x - wide / 2, 0, x + wide / 2, 0.85, trunk)
        for x, y in rng.random((14, 2)):
            green = np.array((40, 112, 44)) * (0.6 + 0.7 * rng.random())
            r = 0.06 + 0.06 * rng.random()
            canvas.disc(x, y * 0.42 - 0.04, r * 1.3, r, green)
    _box(canvas, 0, 0.82, 1, 1, (60, 84, 40))


def _beach(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (104, 186, 240), (196, 230, 246), 0.45)
    _box(canvas, 0, 0.42, 1, 0.62, (34, 140, 186))
    for y in (0.47, 0.53, 0.585):
        x = rng.random()
        _box(canvas, x - 0.4, y, x + 0.25, y + 0.012, (210, 238, 244))
    _box(canvas, 0, 0.61, 1, 1, (238, 214, 158))
    x = rng.choice([0.1, 0.9]) + rng.uniform(-0.04, 0.04)
    canvas.disc(x, 0.1, 0.07, 0.07, (255, 244, 190))
    _palm(canvas, 1 - x, rng)


def _palm(canvas: Canvas, x: float, rng: Random) -> None:
    top = 0.2 + 0.08 * rng.random()
    canvas.line(np.array([(x, 0.66), (x + 0.02, 0.45), (x, top)]), (134, 96, 60), 0.035)
    for angle in np.linspace(0.2, np.pi - 0.2, 5):
        tip = np.array((np.cos(angle) * 0.17, 0.1 - np.sin(angle) * 0.13))
        canvas.line(np.array([(x, top), (x + tip[0], top + tip[1])]), (42, 128, 58), 0.04)


def _snow(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (168, 188, 212), (224, 232, 242), 0.6)
    _ridge(canvas, rng, 0.6, 0.16, (232, 238, 246), 7)
    for x in rng.random(4):
        y, r = 0.62 + 0.1 * rng.random(), 0.07 + 0.03 * rng.random()
        for step in (0.0, 0.1, 0.2):
            w = r * (1.1 - step * 2.4)
            tree = np.array([(x - w, y - step), (x + w, y - step), (x, y - step - 0.17)])
            canvas.fill(tree, (58, 96, 88))
            canvas.fill(tree * 0.4 + (x * 0.6, (y - step - 0.17) * 0.6), (240, 246, 250))
    _box(canvas, 0, 0.72, 1, 1, (246, 249, 253))
    for x, y in rng.random((40, 2)):
        canvas.disc(x, y, 0.011, 0.011, (255, 255, 255))


def _city(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (150, 190, 226), (222, 228, 230), 0.7)
    _towers(canvas, rng, (150, 132, 122), (208, 218, 226), 0.9)
    _box(canvas, 0, 0.86, 1, 1, (96, 98, 104))


def _night(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (12, 14, 42), (50, 34, 84), 0.8)
    _towers(canvas, rng, (34, 34, 62), (255, 214, 110), 0.55)
    for x, y in rng.random((9, 2)):
        neon = np.array([(255, 70, 150), (80, 210, 255), (255, 190, 60), (140, 255, 140)])
        canvas.disc(x, 0.35 + 0.5 * y, 0.025, 0.025, neon[int(rng.integers(4))])
    _box(canvas, 0, 0.88, 1, 1, (28, 26, 44))


def _towers(canvas: Canvas, rng: Random, wall: Paint, window: Paint, lit: float) -> None:
    x = -0.05
    while x < 1.0:
        wide, top = 0.15 + 0.1 * rng.random(), 0.08 + 0.4 * rng.random()
        _box(canvas, x, top, x + wide, 1, np.asarray(wall) * (0.75 + 0.5 * rng.random()))
        for row in np.arange(top + 0.05, 0.84, 0.085):
            for column in np.arange(x + 0.03, x + wide - 0.035, 0.055):
                if rng.random() < lit:
                    _box(canvas, column, row, column + 0.028, row + 0.042, window)
        x += wide + 0.01


def _room(canvas: Canvas, rng: Random) -> None:
    wall = np.array([(222, 204, 174), (198, 208, 190), (206, 190, 200)])[int(rng.integers(3))]
    _fade(canvas, wall, wall * 0.93)
    left = rng.random() < 0.5
    x = 0.04 if left else 0.68
    _box(canvas, x, 0.1, x + 0.28, 0.46, (250, 250, 246))
    _box(canvas, x + 0.02, 0.12, x + 0.26, 0.44, (160, 206, 236))
    _box(canvas, x + 0.13, 0.1, x + 0.15, 0.46, (250, 250, 246))
    lamp = 0.86 if left else 0.14
    _box(canvas, lamp - 0.01, 0.3, lamp + 0.01, 0.75, (90, 70, 56))
    shade = np.array([(-0.09, 0.34), (0.09, 0.34), (0.055, 0.18), (-0.055, 0.18)])
    canvas.fill(shade + np.array((lamp, 0)), (252, 222, 138))
    sofa = np.array([(150, 74, 60), (70, 104, 120), (104, 112, 70)])[int(rng.integers(3))]
    _box(canvas, -0.02, 0.64, 1.02, 0.9, sofa)
    _box(canvas, -0.02, 0.9, 1.02, 1, (140, 98, 64))


def _library(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (88, 56, 36), (70, 44, 28))
    covers = np.array(
        [(160, 50, 46), (46, 84, 120), (60, 110, 70), (200, 170, 110), (110, 70, 120)]
    )
    for top in (0.03, 0.27, 0.51, 0.75):
        x = 0.02
        while x < 0.97:
            wide, low = 0.035 + 0.03 * rng.random(), 0.05 * rng.random()
            colour = covers[int(rng.integers(5))] * (0.8 + 0.4 * rng.random())
            _box(canvas, x, top + low, x + wide, top + 0.2, colour)
            x += wide + 0.008
        _box(canvas, 0, top + 0.2, 1, top + 0.235, (128, 86, 54))


def _desert(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (244, 196, 132), (252, 228, 176), 0.6)
    canvas.disc(rng.choice([0.12, 0.88]), 0.14, 0.07, 0.07, (255, 246, 210))
    _ridge(canvas, rng, 0.62, 0.2, (222, 158, 92), 6)
    _ridge(canvas, rng, 0.78, 0.12, (200, 132, 70), 5)
    x = float(rng.choice([0.1, 0.9]))
    for dx, y0, y1 in ((0, 0.4, 0.74), (-0.06, 0.5, 0.58), (0.06, 0.46, 0.56)):
        canvas.line(np.array([(x + dx, y0), (x + dx, y1)]), (70, 126, 66), 0.035)
    canvas.line(np.array([(x - 0.06, 0.57), (x + 0.06, 0.56)]), (70, 126, 66), 0.03)


def _mountains(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (110, 170, 226), (214, 230, 240), 0.6)
    for x in (0.1, 0.85, rng.random()):
        y, w = 0.12 + 0.16 * rng.random(), 0.34
        rock = np.array([(x - w, 0.75), (x, y), (x + w, 0.75)])
        canvas.fill(rock, np.array((112, 116, 136)) * (0.85 + 0.3 * rng.random()))
        cap = (rock - (x, y)) * 0.32 + (x, y)
        canvas.fill(np.vstack([cap, [(x + 0.03, y + 0.13)]]), (246, 248, 252))
    _ridge(canvas, rng, 0.72, 0.08, (84, 136, 76), 6)


def _sunset(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (112, 60, 130), (255, 160, 70), 0.58)
    x = float(rng.choice([0.14, 0.86]))
    canvas.disc(x, 0.5, 0.11, 0.11, (255, 232, 130))
    canvas.pixels[round(SIDE * 0.58) :, :, :3] = (74, 52, 110)
    for y in np.arange(0.6, 1, 0.05):
        wide = 0.05 + 0.3 * (y - 0.56) * rng.random()
        _box(canvas, x - wide, y, x + wide, y + 0.015, (255, 186, 96))


def _garden(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (156, 212, 244), (206, 234, 240), 0.4)
    for x in np.linspace(0, 1, 9):
        canvas.fill(ellipse(x, 0.46 + 0.05 * rng.random(), 0.1, 0.16), (66, 140, 62))
    _box(canvas, 0, 0.56, 1, 1, (122, 188, 84))
    petals = np.array([(240, 80, 110), (252, 214, 70), (250, 250, 250), (180, 90, 210)])
    for x, y in rng.random((26, 2)):
        canvas.disc(x, 0.36 + 0.6 * y, 0.022, 0.022, petals[int(rng.integers(4))])


PLACES: dict[str, Callable[[Canvas, Random], None]] = {
    "forest": _forest,
    "beach": _beach,
    "snow": _snow,
    "city": _city,
    "night": _night,
    "room": _room,
    "library": _library,
    "desert": _desert,
    "mountains": _mountains,
    "sunset": _sunset,
    "garden": _garden,
}


def out_of_focus(place: NDArray[np.uint8]) -> NDArray[np.uint8]:
    blurred: NDArray[np.uint8] = cv2.GaussianBlur(place, (0, 0), 1.1)  # type: ignore[assignment]
    return blurred

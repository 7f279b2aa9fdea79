"""Backgrounds, drawn in the unit square; y grows downwards, the horizon is near a half."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from .canvas import SIDE, Canvas, Frame, Paint, Points, curve, ellipse, mix, tint
from .scene import COLOURS, Scene

Random = np.random.Generator
WHITE = (255.0, 255.0, 255.0)


def draw_place(scene: Scene) -> NDArray[np.uint8]:
    """Draw the background, `(256, 256, 3)` RGB."""
    rng = np.random.default_rng([scene.seed, 4])
    pixels = np.full((SIDE, SIDE, 4), 255, np.uint8)
    canvas = Canvas(pixels, Frame.at(0.0, 0.0, SIDE, 0.0))
    if scene.place == "wall":
        _wall(canvas, np.array(COLOURS[scene.wall]), scene.light)
    else:
        PLACES[scene.place](canvas, rng)
    return pixels[..., :3]


def _box(canvas: Canvas, x0: float, y0: float, x1: float, y1: float, colour: Paint) -> None:
    canvas.fill(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), colour)


def _fade(
    canvas: Canvas, top: Paint, bottom: Paint, until: float = 1.0, start: float = 0.0
) -> None:
    """A vertical gradient between two heights."""
    first, last = round(SIDE * start), round(SIDE * until)
    share = np.linspace(0, 1, last - first)[:, None]
    canvas.pixels[first:last, :, :3] = (
        np.asarray(top) * (1 - share) + np.asarray(bottom) * share
    ).astype(np.uint8)[:, None]


def _ridge(canvas: Canvas, rng: Random, y: float, height: float, colour: Paint, peaks: int) -> None:
    """A jagged line from edge to edge, filled down to the bottom."""
    x = np.linspace(-0.05, 1.05, peaks)
    heights = y - height * rng.random(peaks) * (np.arange(peaks) % 2)
    line = np.stack([x, heights], axis=1)
    canvas.fill(np.vstack([line, [(1.05, 1), (-0.05, 1)]]), colour)


def _hills(canvas: Canvas, rng: Random, y: float, height: float, colour: Paint) -> None:
    """A rolling line from edge to edge, filled down to the bottom."""
    x = np.linspace(-0.1, 1.1, 6)
    line = curve([(a, y - height * rng.random() * (i % 2)) for i, a in enumerate(x)], 8)
    canvas.fill(np.vstack([line, [(1.1, 1), (-0.1, 1)]]), colour)


def _clouds(canvas: Canvas, rng: Random, count: int, y: float = 0.2) -> None:
    for x in rng.random(count):
        height = y * (0.3 + 0.9 * rng.random())
        for dx, dy, r in ((-0.07, 0.01, 0.045), (0.0, -0.015, 0.06), (0.07, 0.01, 0.045)):
            canvas.fill(ellipse(x + dx, height + dy, r * 1.3, r * 0.75), (250, 251, 253))


def _wall(canvas: Canvas, colour: Points, light: float) -> None:
    soft = mix(colour, (235, 232, 228), 0.2)
    _fade(canvas, tint(soft, 1.06), soft * 0.84)
    canvas.glow(0.5 + 0.35 * light, 0.3, 0.4, 0.4, tint(soft, 1.3), 0.5)


def _forest(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (188, 222, 150), (86, 138, 78), 0.7)
    _fade(canvas, (74, 112, 56), (96, 128, 60), 1.0, 0.7)
    for depth in (0.35, 0.65, 1.0):
        bark = mix((140, 170, 120), (88, 58, 38), depth)
        leaf = mix((140, 184, 112), (38, 98, 50), depth)
        for x in np.linspace(0, 1, 5) + 0.2 * rng.random(5) - 0.1:
            wide = (0.025 + 0.03 * rng.random()) * (0.5 + depth)
            _box(canvas, x - wide / 2, 0, x + wide / 2, 0.68 + 0.14 * depth, bark)
            _box(canvas, x, 0, x + wide / 2, 0.68 + 0.14 * depth, bark * 0.82)
        for x in np.linspace(0, 1, 6):
            y, r = 0.1 * rng.random() - 0.02, 0.09 + 0.05 * rng.random()
            canvas.disc(x + 0.1 * rng.random(), y, r * 1.2, r, leaf * (0.85 + 0.3 * rng.random()))
    canvas.glow(0.2 + 0.6 * rng.random(), 0.25, 0.2, 0.35, (255, 248, 190), 0.35)


def _beach(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (92, 180, 240), (206, 236, 248), 0.46)
    _clouds(canvas, rng, 2)
    _fade(canvas, (30, 134, 186), (86, 196, 206), 0.64, 0.46)
    for y in (0.5, 0.55, 0.6):
        x = rng.random()
        _box(canvas, x - 0.16, y, x + 0.16, y + 0.008, (206, 238, 240))
    _fade(canvas, (250, 228, 176), (230, 194, 134), 1.0, 0.64)
    _box(canvas, 0, 0.635, 1, 0.655, (246, 250, 248))
    x = float(rng.choice([0.1, 0.9]))
    canvas.glow(1 - x, 0.13, 0.13, 0.13, (255, 250, 214), 0.7)
    canvas.disc(1 - x, 0.13, 0.065, 0.065, (255, 246, 196))
    _palm(canvas, x, rng)


def _palm(canvas: Canvas, x: float, rng: Random) -> None:
    top = 0.18 + 0.08 * rng.random()
    lean = 0.04 if x < 0.5 else -0.04
    trunk = [(x - lean, 0.72), (x - lean * 0.4, 0.45), (x, top)]
    canvas.line(curve(trunk, 5), (140, 100, 64), 0.034)
    for turn in np.linspace(-0.25, np.pi + 0.25, 7):
        end = np.array((np.cos(turn) * 0.19, 0.09 - np.sin(turn) * 0.16))
        bend = [
            (x, top),
            (x + end[0] * 0.6, top + end[1] * 0.6 - 0.045),
            (x + end[0], top + end[1]),
        ]
        canvas.line(curve(bend, 5), (40, 134, 64), 0.034)
        canvas.line(curve(bend, 5) + np.array((0, 0.008)), (30, 104, 54), 0.012)


def _snow(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (152, 184, 220), (226, 236, 246), 0.6)
    _ridge(canvas, rng, 0.6, 0.2, (204, 216, 234), 7)
    _hills(canvas, rng, 0.64, 0.06, (236, 242, 250))
    for x in np.linspace(0.02, 0.98, 5) + 0.08 * rng.random(5):
        y, r = 0.68 + 0.08 * rng.random(), 0.075 + 0.03 * rng.random()
        _box(canvas, x - 0.01, y - 0.02, x + 0.01, y + 0.03, (90, 66, 52))
        for step in (0.0, 0.1, 0.2):
            w, base = r * (1.1 - step * 2.6), y - step * 1.1
            tree = np.array([(x - w, base), (x + w, base), (x, base - 0.16)])
            canvas.fill(tree, (46, 92, 88))
            cap = np.array(
                [(x - w * 0.5, base - 0.08), (x + w * 0.5, base - 0.08), (x, base - 0.165)]
            )
            canvas.fill(cap, (242, 247, 252))
    _fade(canvas, (244, 248, 253), (220, 230, 244), 1.0, 0.76)
    for x, y in rng.random((34, 2)):
        canvas.disc(x, y, 0.009, 0.009, WHITE)


def _city(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (112, 178, 232), (226, 236, 240), 0.75)
    _clouds(canvas, rng, 2, 0.16)
    for x in np.linspace(0, 0.95, 7):  # far houses in the haze
        top = 0.26 + 0.2 * rng.random()
        _box(canvas, x - 0.02, top, x + 0.13, 0.9, mix((176, 190, 206), WHITE, 0.15))
    _towers(canvas, rng, (176, 140, 118), (206, 228, 240), 0.9)
    _fade(canvas, (128, 130, 136), (100, 102, 108), 1.0, 0.86)
    for x in (0.1, 0.45, 0.8):
        _box(canvas, x, 0.93, x + 0.14, 0.945, (236, 232, 214))


def _night(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (10, 14, 48), (74, 44, 110), 0.85)
    for x, y in rng.random((14, 2)):
        canvas.disc(x, 0.3 * y, 0.005, 0.005, (226, 230, 250))
    _towers(canvas, rng, (36, 38, 72), (255, 210, 112), 0.55)
    _fade(canvas, (40, 34, 66), (22, 20, 40), 1.0, 0.88)
    neon = ((255, 70, 150), (80, 210, 255), (255, 190, 60), (140, 255, 150))
    for n, (x, y) in enumerate(rng.random((10, 2))):
        colour = neon[n % 4]
        canvas.glow(x, 0.4 + 0.48 * y, 0.05, 0.05, colour, 0.5)
        canvas.disc(x, 0.4 + 0.48 * y, 0.02, 0.02, mix(colour, WHITE, 0.25))


def _towers(canvas: Canvas, rng: Random, wall: Paint, window: Paint, lit: float) -> None:
    x = -0.05
    while x < 1.0:
        wide, top = 0.15 + 0.09 * rng.random(), 0.1 + 0.36 * rng.random()
        colour = np.asarray(wall, float) * (0.78 + 0.4 * rng.random(3) * (0.9, 1.0, 1.1))
        _box(canvas, x, top, x + wide, 1, colour)
        _box(canvas, x + wide * 0.82, top, x + wide, 1, colour * 0.82)
        for row in np.arange(top + 0.045, 0.84, 0.085):
            for column in np.arange(x + 0.025, x + wide * 0.8 - 0.03, 0.05):
                light = rng.random() < lit
                _box(
                    canvas,
                    column,
                    row,
                    column + 0.028,
                    row + 0.045,
                    window if light else colour * 0.7,
                )
        x += wide + 0.012


def _room(canvas: Canvas, rng: Random) -> None:
    walls = np.array([(232, 214, 184), (204, 216, 196), (218, 200, 208)])
    wall = walls[int(rng.integers(3))]
    _fade(canvas, tint(wall, 1.1), wall * 0.93)
    left = rng.random() < 0.5
    x = 0.04 if left else 0.66
    _box(canvas, x, 0.08, x + 0.3, 0.48, (252, 251, 247))
    for dx in (0.02, 0.16):
        for y0, y1 in ((0.1, 0.27), (0.29, 0.46)):
            _box(canvas, x + dx, y0, x + dx + 0.12, y1, (158, 210, 240))
            canvas.fill(ellipse(x + dx + 0.06, y1 - 0.015, 0.055, 0.012), (214, 234, 226))
    lamp = 0.86 if left else 0.14
    canvas.glow(lamp, 0.3, 0.2, 0.2, (255, 236, 170), 0.6)
    _box(canvas, lamp - 0.009, 0.3, lamp + 0.009, 0.75, (96, 74, 58))
    shade = np.array([(-0.1, 0.36), (0.1, 0.36), (0.06, 0.19), (-0.06, 0.19)])
    canvas.fill(shade + np.array((lamp, 0)), (255, 228, 150))
    sofas = np.array([(176, 84, 68), (74, 118, 138), (118, 128, 80)])
    sofa = sofas[int(rng.integers(3))]
    _box(canvas, -0.02, 0.62, 1.02, 0.92, sofa)
    for x0 in (-0.02, 0.34, 0.68):
        _box(canvas, x0 + 0.02, 0.64, x0 + 0.34, 0.82, tint(sofa, 1.12))
    _box(canvas, -0.02, 0.9, 1.02, 1, (150, 104, 68))


def _library(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (92, 58, 36), (66, 40, 26))
    covers = np.array(
        [(170, 54, 48), (46, 92, 134), (64, 118, 76), (212, 178, 112), (118, 76, 130), (60, 60, 76)]
    )
    for top in (0.02, 0.265, 0.51, 0.755):
        x = 0.015
        while x < 0.97:
            wide, low = 0.034 + 0.026 * rng.random(), 0.05 * rng.random()
            colour = covers[int(rng.integers(6))] * (0.85 + 0.3 * rng.random())
            _box(canvas, x, top + low, x + wide, top + 0.205, colour)
            _box(canvas, x, top + low, x + 0.008, top + 0.205, tint(colour, 1.25))
            _box(
                canvas,
                x + 0.006,
                top + low + 0.03,
                x + wide - 0.004,
                top + low + 0.045,
                (236, 208, 130),
            )
            x += wide + 0.006
        _box(canvas, 0, top + 0.205, 1, top + 0.24, (146, 98, 60))
        _box(canvas, 0, top + 0.23, 1, top + 0.245, (70, 42, 26))


def _desert(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (104, 178, 222), (252, 226, 172), 0.6)
    x = float(rng.choice([0.12, 0.88]))
    canvas.glow(1 - x, 0.14, 0.14, 0.14, (255, 246, 200), 0.8)
    canvas.disc(1 - x, 0.14, 0.065, 0.065, (255, 248, 214))
    _hills(canvas, rng, 0.6, 0.14, (232, 176, 112))
    _hills(canvas, rng, 0.72, 0.1, (224, 156, 86))
    _hills(canvas, rng, 0.88, 0.08, (204, 130, 66))
    green = np.array((74, 136, 76))
    for dx, y0, y1 in ((0.0, 0.36, 0.78), (-0.065, 0.46, 0.57), (0.065, 0.43, 0.54)):
        canvas.line(np.array([(x + dx, y0), (x + dx, y1)]), green, 0.042)
        canvas.line(np.array([(x + dx - 0.008, y0), (x + dx - 0.008, y1)]), tint(green, 1.2), 0.01)
    canvas.line(np.array([(x - 0.065, 0.57), (x, 0.59)]), green, 0.038)
    canvas.line(np.array([(x, 0.56), (x + 0.065, 0.54)]), green, 0.038)


def _mountains(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (86, 158, 228), (220, 236, 246), 0.6)
    _clouds(canvas, rng, 2, 0.14)
    for x in (0.08, 0.9, 0.3 + 0.4 * rng.random()):
        y, w = 0.14 + 0.16 * rng.random(), 0.34
        rock = np.array([(x - w, 0.78), (x, y), (x + w, 0.78)])
        colour = np.array((116, 124, 152)) * (0.9 + 0.22 * rng.random())
        canvas.fill(rock, colour)
        canvas.fill(np.array([(x + 0.04, 0.78), (x, y), (x + w, 0.78)]), colour * 0.82)
        cap = (rock - (x, y)) * 0.3 + (x, y)
        jag = [(x + 0.055, y + 0.15), (x + 0.01, y + 0.2), (x - 0.05, y + 0.14)]
        canvas.fill(np.vstack([cap[[0, 1, 2]], jag]), (248, 250, 254))
    _hills(canvas, rng, 0.72, 0.07, (110, 160, 96))
    _hills(canvas, rng, 0.82, 0.06, (84, 138, 74))


def _sunset(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (84, 58, 138), (240, 110, 110), 0.34)
    _fade(canvas, (240, 110, 110), (255, 190, 90), 0.58, 0.34)
    x = float(rng.choice([0.15, 0.85]))
    canvas.glow(x, 0.5, 0.26, 0.22, (255, 226, 130), 0.8)
    canvas.disc(x, 0.5, 0.1, 0.1, (255, 240, 160))
    for y in (0.12, 0.22, 0.3):
        at = rng.random()
        canvas.fill(ellipse(at, y, 0.2, 0.014), (250, 150, 130))
    _fade(canvas, (150, 78, 128), (58, 46, 104), 1.0, 0.58)
    for y in np.arange(0.6, 1, 0.045):
        wide = 0.04 + 0.28 * (y - 0.56) * (0.5 + rng.random())
        _box(canvas, x - wide, y, x + wide, y + 0.014, (255, 196, 112))


def _garden(canvas: Canvas, rng: Random) -> None:
    _fade(canvas, (136, 204, 246), (216, 240, 244), 0.45)
    _clouds(canvas, rng, 1, 0.16)
    for row, colour in ((0.4, (104, 172, 92)), (0.5, (70, 146, 70))):
        for x in np.linspace(-0.02, 1.02, 8):
            r = 0.09 + 0.04 * rng.random()
            canvas.disc(x, row, r, r * 1.2, np.array(colour) * (0.92 + 0.16 * rng.random()))
    _fade(canvas, (132, 200, 92), (92, 164, 70), 1.0, 0.56)
    petals = ((242, 84, 116), (254, 216, 76), (252, 250, 250), (186, 104, 216))
    r = 0.02
    for n, (x, y) in enumerate(rng.random((22, 2)) * (1, 0.6) + (0, 0.36)):
        for turn in np.arange(5) * 1.2566:
            canvas.disc(x + r * np.cos(turn), y + r * np.sin(turn), 0.015, 0.015, petals[n % 4])
        canvas.disc(x, y, 0.012, 0.012, (252, 200, 60) if n % 4 != 1 else (210, 120, 40))


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
    blurred: NDArray[np.uint8] = cv2.GaussianBlur(place, (0, 0), 2.2)  # type: ignore[assignment]
    return blurred

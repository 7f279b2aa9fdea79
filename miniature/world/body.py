"""Draws neck, shoulders and clothes, in the head's units but upright."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .canvas import Canvas, Points, curve, mirrored, mix, tint
from .head import Face
from .scene import COLOURS

BOTTOM = 4.0
LIGHT = (242.0, 240.0, 236.0)


def draw_body(canvas: Canvas, face: Face) -> None:
    """Shoulders in the garment's colour, its pattern, the neck, and what the garment adds."""
    scene, wide = face.scene, 1.35 if face.who.woman else 1.6
    colour = np.array(COLOURS[scene.colour])
    canvas.fill(_shoulders(wide), colour)
    _pattern(canvas, face, wide, colour)
    _folds(canvas, wide, colour)
    neck = 0.3 if face.who.woman else 0.38
    DETAILS[scene.garment](canvas, face, neck, colour)


def _shoulders(wide: float) -> Points:
    slope = [(-0.3, 1.2), (-wide * 0.55, 1.36), (-wide * 0.88, 1.58), (-wide * 1.04, 2.1)]
    return mirrored(curve([*slope, (-wide * 1.1, BOTTOM)], 4))


def _folds(canvas: Canvas, wide: float, colour: Points) -> None:
    """Lines between arms and chest, and light on the shoulders."""
    dark = colour * 0.62
    for side in (-1, 1):
        arm = [(0.66, 1.86), (0.72, 2.2), (0.7, 2.6), (0.72, BOTTOM)]
        canvas.line(curve([(side * wide * x, y) for x, y in arm], 4), colour * 0.7, 0.026)
        edge = np.array([(0.7, 1.8), (0.8, 1.9), (0.78, BOTTOM), (0.66, BOTTOM)]) * (side * wide, 1)
        canvas.shadow(edge, dark, 0.4, 0.06)
        fold = np.array([(0.5, 1.75), (0.3, 2.3), (0.36, 2.32)]) * (side * wide, 1)
        canvas.shadow(fold, dark, 0.4, 0.04)
        canvas.glow(side * wide * 0.62, 1.5, 0.26, 0.1, mix(colour, LIGHT, 0.5), 0.35)


def _pattern(canvas: Canvas, face: Face, wide: float, colour: Points) -> None:
    dark = colour.mean() < 120
    second = mix(colour, LIGHT, 0.75) if dark else mix(colour, (40, 40, 70), 0.6)
    if face.scene.pattern == "striped":
        for y in np.arange(1.62, 2.8, 0.3):
            x = min(1.02, 0.9 + 0.3 * (y - 1.6)) * wide
            canvas.line(curve([(-x, y + 0.06), (0, y), (x, y + 0.06)], 3), second, 0.1)
    if face.scene.pattern == "dotted":
        for row, y in enumerate(np.arange(1.55, 2.8, 0.24)):
            for x in np.arange(-1.2, 1.3, 0.34) + 0.17 * (row % 2):
                if abs(x) < wide * 0.92:
                    canvas.disc(x, y, 0.065, 0.065, second)


def _skin(canvas: Canvas, face: Face, neck: float, depth: float, width: float) -> None:
    """The neck, down into an opening of the garment."""
    column = [(-neck, 0.5), (-neck, 1.05), (-neck * 1.1, 1.22), (-width, 1.3)]
    opening = [*column, (-width * 0.6, 1.3 + depth * 0.7), (0, 1.3 + depth)]
    canvas.fill(mirrored(curve(opening, 4)), mix(face.skin, face.shade, 0.12))
    chin = face.outline(1.0, top=0.0) + np.array((0, 0.17))
    canvas.shadow(chin, mix(face.skin * 0.6, face.shade * 0.8, 0.5), 0.75, 0.06)
    for side in (-1, 1):
        bone = [(side * neck * 0.3, 1.27 + depth * 0.2), (side * width * 0.95, 1.27)]
        canvas.line(np.array(bone), mix(face.skin, face.shade, 0.35), 0.022)


def _shirt(canvas: Canvas, face: Face, neck: float, colour: Points) -> None:
    _skin(canvas, face, neck, 0.32, neck * 1.15)
    for side in (-1, 1):
        flap = np.array([(0.0, 1.62), (neck * 1.1, 1.14), (neck * 1.5, 1.24), (neck * 1.25, 1.72)])
        canvas.fill(flap * (side, 1), tint(colour, 1.25))
        canvas.line(flap[[0, 3, 2]] * (side, 1), colour * 0.6, 0.03)
    canvas.line(np.array([(0, 1.62), (0, BOTTOM)]), colour * 0.62, 0.035)
    for y in (1.85, 2.2, 2.55):
        canvas.disc(0.07, y, 0.035, 0.035, LIGHT)


def _sweater(canvas: Canvas, face: Face, neck: float, colour: Points) -> None:
    """A roll-neck."""
    _skin(canvas, face, neck, 0.05, neck)
    roll = [(-neck * 1.12, 1.02), (-neck * 1.3, 1.2), (-neck * 1.3, 1.4), (0, 1.48)]
    canvas.fill(mirrored(curve(roll, 4)), tint(colour, 1.18))
    for x in (-0.6, -0.2, 0.2, 0.6):
        canvas.line(np.array([(x * neck, 1.14), (x * neck, 1.4)]), colour * 0.75, 0.03)


def _hoodie(canvas: Canvas, face: Face, neck: float, colour: Points) -> None:
    hood = [(-neck * 1.2, 1.0), (-neck * 2.3, 1.16), (-neck * 2.2, 1.46), (0, 1.72)]
    canvas.fill(mirrored(curve(hood, 4)), colour * 0.72)
    _skin(canvas, face, neck, 0.2, neck * 1.2)
    for x in (-0.16, 0.16):
        canvas.line(np.array([(x, 1.56), (x * 1.2, 2.1)]), LIGHT, 0.05)


def _jacket(canvas: Canvas, face: Face, neck: float, colour: Points) -> None:
    """Open over a light shirt, with a zip on either side."""
    inside = np.array(
        [(-neck * 1.3, 1.2), (neck * 1.3, 1.2), (neck * 1.0, BOTTOM), (-neck, BOTTOM)]
    )
    canvas.fill(inside, LIGHT)
    _skin(canvas, face, neck, 0.14, neck * 1.1)
    for side in (-1, 1):
        flap = np.array(
            [(neck * 1.1, 1.1), (neck * 1.9, 1.26), (neck * 2.1, 1.6), (neck * 1.0, 1.9)]
        )
        canvas.fill(flap * (side, 1), tint(colour, 1.15))
        canvas.line(
            np.array([(neck * 1.0, 1.9), (neck, BOTTOM)]) * (side, 1), (120, 120, 126), 0.05
        )


def _suit(canvas: Canvas, face: Face, neck: float, colour: Points) -> None:
    """Lapels over a white shirt and a tie."""
    shirt = np.array([(-neck * 1.3, 1.16), (neck * 1.3, 1.16), (0, 2.5)])
    canvas.fill(shirt, LIGHT)
    _skin(canvas, face, neck, 0.06, neck)
    dark = colour.mean() < 70
    tie = np.array([(0, 1.34), (0.09, 1.42), (0.13, 2.2), (0, 2.45), (-0.13, 2.2), (-0.09, 1.42)])
    canvas.fill(tie, (190, 40, 50) if dark else mix(colour, (30, 30, 50), 0.7))
    for side in (-1, 1):
        lapel = np.array([(neck * 1.25, 1.16), (neck * 2.2, 1.5), (neck * 1.6, 1.8), (0.04, 2.5)])
        canvas.fill(lapel * (side, 1), colour * 0.8)
        canvas.line(lapel[[0, 3]] * (side, 1), colour * 0.5, 0.03)


def _dress(canvas: Canvas, face: Face, neck: float, colour: Points) -> None:
    """Bare shoulders between two straps, and a necklace."""
    wide = 1.35 if face.who.woman else 1.6
    shade = mix(face.skin, face.shade, 0.15)
    bare = [
        (-neck, 1.1),
        (-wide * 0.55, 1.34),
        (-wide * 0.88, 1.56),
        (-wide * 1.0, 1.9),
        (-0.4, 1.86),
        (0, 2.0),
    ]
    canvas.fill(mirrored(curve(bare, 4)), shade)
    _skin(canvas, face, neck, 0.1, neck * 1.1)
    for side in (-1, 1):
        canvas.line(np.array([(wide * 0.5, 1.32), (0.52, 1.95)]) * (side, 1), colour, 0.12)
    canvas.line(curve([(-neck, 1.3), (0, 1.56), (neck, 1.3)], 4), (250, 210, 90), 0.04)


DETAILS: dict[str, Callable[[Canvas, Face, float, Points], None]] = {
    "shirt": _shirt,
    "sweater": _sweater,
    "hoodie": _hoodie,
    "jacket": _jacket,
    "suit": _suit,
    "dress": _dress,
}

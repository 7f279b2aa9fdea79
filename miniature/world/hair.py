"""Draws hair, behind the head and in front of it, in the head's units."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Points, curve, mix, tint
from .head import Face

LOOSE = ("long", "wavy", "bob", "fringe")
# Left half of the hair that hangs behind the head, by cut, top to bottom; x in half widths.
FALLS: dict[str, tuple[tuple[float, float], ...]] = {
    "long": ((0.0, -1.14), (0.85, -0.85), (1.22, -0.2), (1.3, 0.6), (1.34, 1.5), (0.7, 1.6)),
    "wavy": (
        (0.0, -1.16),
        (0.9, -0.9),
        (1.36, -0.3),
        (1.26, 0.3),
        (1.56, 0.8),
        (1.4, 1.25),
        (0.8, 1.4),
    ),
    "bob": ((0.0, -1.15), (0.9, -0.86), (1.28, -0.2), (1.38, 0.5), (1.22, 0.84), (0.6, 0.86)),
    "fringe": ((0.0, -1.13), (0.9, -0.86), (1.24, -0.2), (1.26, 0.6), (1.3, 1.05), (0.6, 1.1)),
}
# Where the hair ends on the forehead, from the left temple to the right; y in half heights.
HAIRLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "long": (
        (-1.0, 0.1),
        (-0.86, -0.3),
        (-0.4, -0.62),
        (0.0, -0.8),
        (0.4, -0.62),
        (0.86, -0.3),
        (1.0, 0.1),
    ),
    "wavy": (
        (-1.02, 0.2),
        (-0.9, -0.25),
        (-0.6, -0.55),
        (0.2, -0.78),
        (0.7, -0.5),
        (0.9, -0.2),
        (1.02, 0.2),
    ),
    "bob": (
        (-1.03, 0.3),
        (-0.92, -0.2),
        (-0.7, -0.5),
        (0.3, -0.76),
        (0.8, -0.42),
        (0.92, -0.1),
        (1.03, 0.3),
    ),
    "fringe": (
        (-1.02, 0.3),
        (-0.9, -0.15),
        (-0.8, -0.34),
        (0.0, -0.3),
        (0.8, -0.34),
        (0.9, -0.15),
        (1.02, 0.3),
    ),
    "bun": (
        (-1.0, -0.05),
        (-0.88, -0.42),
        (-0.5, -0.66),
        (0.0, -0.72),
        (0.5, -0.66),
        (0.88, -0.42),
        (1.0, -0.05),
    ),
    "curly": (
        (-1.04, 0.1),
        (-0.88, -0.3),
        (-0.6, -0.5),
        (0.0, -0.56),
        (0.6, -0.5),
        (0.88, -0.3),
        (1.04, 0.1),
    ),
    "short": (
        (-1.03, 0.12),
        (-0.88, -0.1),
        (-0.84, -0.42),
        (-0.4, -0.6),
        (0.0, -0.52),
        (0.4, -0.6),
        (0.84, -0.42),
        (0.88, -0.1),
        (1.03, 0.12),
    ),
    "side": (
        (-1.03, 0.12),
        (-0.88, -0.1),
        (-0.8, -0.38),
        (-0.2, -0.44),
        (0.5, -0.76),
        (0.84, -0.44),
        (0.88, -0.1),
        (1.03, 0.12),
    ),
    "quiff": (
        (-1.02, 0.08),
        (-0.9, -0.15),
        (-0.82, -0.5),
        (-0.4, -0.62),
        (0.0, -0.7),
        (0.5, -0.74),
        (0.82, -0.5),
        (0.9, -0.15),
        (1.02, 0.08),
    ),
    "receding": (
        (-1.0, 0.0),
        (-0.94, -0.4),
        (-0.66, -0.86),
        (0.0, -0.68),
        (0.66, -0.86),
        (0.94, -0.4),
        (1.0, 0.0),
    ),
}
RISES = {
    "quiff": 0.24,
    "curly": 0.26,
    "short": 0.12,
    "side": 0.16,
    "wavy": 0.14,
    "bob": 0.12,
    "receding": 0.0,
    "bun": 0.05,
}
STRANDS = 15


def draw_back(canvas: Canvas, face: Face) -> None:
    """Draw the hair behind neck and ears."""
    colour, cut = face.hair * 0.74, face.who.cut
    grow = 0.92 + 0.2 * face.who.volume
    if cut in LOOSE:
        left = curve([(-x * face.half * grow, y) for x, y in FALLS[cut]], 5)
        canvas.fill(np.vstack([left, (left * (-1, 1))[::-1]]), colour)
        for side in (-1, 1):
            for n, share in enumerate(np.linspace(0.7, 0.96, 5)):
                strand = left[6:-3] * (-side * share, 1)
                canvas.line(strand, tint(colour, (1.16, 0.8)[n % 2]), 0.026)
    elif cut == "bun":
        x, y, r = face.turn * -1.5, -1.18, 0.3 * grow
        canvas.disc(x, y, r * 1.1, r * 0.9, face.hair * 0.86)
        for n, turn in enumerate((0.75, 0.45, 0.15)):
            ring = curve(
                [(x - r * turn, y + 0.1), (x, y - r * 0.8 * turn), (x + r * turn, y + 0.1)], 5
            )
            canvas.line(ring, tint(face.hair, (1.15, 0.72)[n % 2]), 0.024)
    elif cut == "curly":
        for x, y in _curls(face, 0.35 if face.who.woman else -0.1):
            canvas.disc(x, y, 0.25 * grow, 0.25 * grow, colour)


def draw_shade(canvas: Canvas, face: Face) -> None:
    """Draw the shadow of the hair on the forehead; the hair itself is drawn later."""
    if face.who.cut != "bald":
        cap = np.vstack([_outer(face), _hairline(face)[::-1]])
        canvas.shadow(cap + np.array((0, 0.07)), face.shade, 0.6, 0.04)


def draw_front(canvas: Canvas, face: Face) -> None:
    """Draw the cap of hair on the skull, its strands and its shine."""
    cut = face.who.cut
    if cut == "bald":
        canvas.glow(-0.2 * np.sign(face.scene.light) + face.turn, -0.72, 0.17, 0.1, WHITE, 0.35)
        return
    colour = face.hair
    outer, inner = _outer(face), _hairline(face)
    canvas.fill(np.vstack([outer, inner[::-1]]), colour)
    if cut == "curly":
        _draw_curls(canvas, face, colour)
        return
    same = _resample(inner, len(outer))
    if cut in ("short", "quiff", "receding", "bun"):
        _strands_across(canvas, face, outer, same)
    else:
        for n, share in enumerate(np.linspace(0.08, 0.94, 11)):
            strand = outer * (1 - share) + same * share
            split = len(strand) // 2 + round((0.5 - face.who.parting) * 6)
            for part in (strand[2:split], strand[split:-2]):
                canvas.line(part, tint(colour, (1.13, 0.82, 1.04)[n % 3]), 0.024)
    band = outer * 0.62 + same * 0.38
    third = slice(4, 11) if face.scene.light < 0 else slice(-11, -4)
    shine = np.vstack([band[third] + (0, -0.05), (band[third] + (0, 0.06))[::-1]])
    canvas.shadow(shine, mix(colour, WHITE, 0.5), 0.5, 0.04)


WHITE = (255.0, 250.0, 240.0)


def _strands_across(canvas: Canvas, face: Face, outer: Points, inner: Points) -> None:
    """Draw strands from the hairline back over the skull."""
    who = face.who
    pull = 0.0 if who.cut in ("bun", "receding") else 0.09 * (1 if who.parting < 0.5 else -1)
    first, reach = (0.28, 0.6) if who.cut == "receding" else (0.16, 0.92)
    for n, at in enumerate(np.linspace(first, 1 - first, STRANDS)):
        start, end = (_at(line, at * (len(line) - 1)) for line in (inner, outer))
        middle, tip = (start + end) / 2 + (pull, -0.02), mix(start, end, reach)
        strand = curve([tuple(start), tuple(mix(start, middle, reach)), tuple(tip)], 4)
        canvas.line(strand, tint(face.hair, (1.15, 0.8, 1.0)[n % 3]), 0.026)


def _draw_curls(canvas: Canvas, face: Face, colour: Points) -> None:
    for n, (x, y) in enumerate(_curls(face, -0.5)):
        canvas.disc(x * 0.95, y * 0.97, 0.19, 0.19, colour * (0.9, 1.0, 1.1)[n % 3])
    for n, (x, y) in enumerate(_curls(face, -0.45)):
        cx, cy = x * 0.92, y * 0.94
        arc = [
            (cx - 0.11, cy + 0.04),
            (cx - 0.02, cy - 0.09),
            (cx + 0.1, cy - 0.01),
            (cx + 0.04, cy + 0.06),
        ]
        canvas.line(curve(arc, 4), tint(colour, (1.16, 0.8)[n % 2]), 0.028)


def _outer(face: Face) -> Points:
    """Return the outline from the left temple over the top to the right temple."""
    low = _hairline_points(face)[0][1]
    angles = np.linspace(np.pi + np.arcsin(-low), 2 * np.pi + np.arcsin(low), 31)
    rise = RISES.get(face.who.cut, 0.08) * (0.5 + face.who.volume)
    x, y = np.cos(angles), np.sin(angles)
    lean = 0.0
    if face.who.cut in ("quiff", "side"):  # higher on the side of the parting
        lean = (0.35 if face.who.parting < 0.5 else -0.35) * (1 if face.who.cut == "quiff" else 0.6)
    top = 1.06 + rise * (1 + lean * x)
    x = np.sign(x) * np.abs(x) ** 0.9 * face.half * (1.05 + 0.09 * face.who.volume)
    return np.stack([x - face.turn * 0.3, np.where(y < 0, y * top, y)], axis=1)


def _at(points: Points, i: float) -> Points:
    low = min(int(i), len(points) - 2)
    return points[low] * (1 - (i - low)) + points[low + 1] * (i - low)


def _hairline(face: Face) -> Points:
    points = [(x * face.half + face.turn * (1 - abs(x)), y) for x, y in _hairline_points(face)]
    return curve(points, 4)


def _hairline_points(face: Face) -> tuple[tuple[float, float], ...]:
    """The cut's own hairline; some are parted on the other side."""
    line = HAIRLINES[face.who.cut]
    return line if face.who.parting < 0.5 else tuple((-x, y) for x, y in reversed(line))


def _resample(points: Points, count: int) -> Points:
    at = np.linspace(0, len(points) - 1, count)
    return np.stack([np.interp(at, range(len(points)), points[:, i]) for i in (0, 1)], axis=1)


def _curls(face: Face, down_to: float) -> list[tuple[float, float]]:
    reach = 1.02 + 0.16 * face.who.volume
    start = np.pi - np.arcsin(down_to)
    angles = np.linspace(start, 3 * np.pi - start, 13)
    return [(np.cos(a) * reach * face.half * 1.12, np.sin(a) * reach) for a in angles]

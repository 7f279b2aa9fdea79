"""Draws hair, behind the head and in front of it, in the head's units."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Points, curve, tint
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
    "quiff": 0.26,
    "curly": 0.3,
    "short": 0.12,
    "side": 0.16,
    "wavy": 0.14,
    "bob": 0.12,
    "receding": 0.0,
    "bun": 0.04,
}


def draw_back(canvas: Canvas, face: Face) -> None:
    """What lies behind neck and ears."""
    colour, cut = face.who.hair_colour() * 0.78, face.who.cut
    grow = 0.92 + 0.2 * face.who.volume
    if cut in LOOSE:
        left = curve([(-x * face.half * grow, y) for x, y in FALLS[cut]], 4)
        canvas.fill(np.vstack([left, (left * (-1, 1))[::-1]]), colour)
    elif cut == "bun":
        canvas.disc(face.turn * -1.5, -1.17, 0.32 * grow, 0.27 * grow, face.who.hair_colour() * 0.9)
    elif cut == "curly":
        for x, y in _curls(face, 0.3 if face.who.woman else -0.1):
            canvas.disc(x, y, 0.26 * grow, 0.26 * grow, colour)


def draw_front(canvas: Canvas, face: Face) -> None:
    """The cap of hair on the skull, its lights and its strands."""
    cut = face.who.cut
    if cut == "bald":
        return
    colour = face.who.hair_colour()
    outer, inner = _outer(face), _hairline(face)
    canvas.fill(np.vstack([outer, inner[::-1]]), colour)
    if cut == "curly":
        for i, (x, y) in enumerate(_curls(face, -0.5)):
            canvas.disc(x * 0.95, y * 0.97, 0.19, 0.19, colour * (0.9, 1.0, 1.12)[i % 3])
        return
    for share, light in ((0.3, 1.14), (0.55, 0.8), (0.8, 1.1)):
        strand = outer[5:-5] * (1 - share) + _resample(inner, len(outer))[5:-5] * share
        middle = strand[2 : len(strand) // 2] if share != 0.55 else strand[4:-4]
        canvas.line(middle, tint(colour, light), 0.045)


def _outer(face: Face) -> Points:
    """From the left temple over the top to the right one."""
    low = _hairline_points(face)[0][1]
    angles = np.linspace(np.pi + np.arcsin(-low), 2 * np.pi + np.arcsin(low), 25)
    top = 1.06 + RISES.get(face.who.cut, 0.08) * (0.5 + face.who.volume)
    x, y = np.cos(angles), np.sin(angles)
    x = np.sign(x) * np.abs(x) ** 0.9 * face.half * (1.06 + 0.1 * face.who.volume)
    return np.stack([x - face.turn * 0.3, np.where(y < 0, y * top, y)], axis=1)


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

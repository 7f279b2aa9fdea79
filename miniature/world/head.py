"""Draws a face. Units: the head's half height; chin at y = 1, top of the skull at y = -1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Points, curve, ellipse, mix, tint
from .identity import EYES, FRAMES, Identity
from .scene import Scene

DARK = (38.0, 24.0, 24.0)
TEETH = (250.0, 246.0, 240.0)


@dataclass(frozen=True)
class Look:
    """What an expression does to eyes, brows and mouth."""

    smile: float  # how far the corners of the mouth rise
    opening: float
    lids: float  # openness of the eyes
    brow_lift: float
    brow_inner: float  # how far the brows' inner ends rise beyond that


LOOKS = {
    "serious": Look(0.0, 0.0, 1.0, 0.0, 0.0),
    "smiling": Look(0.12, 0.0, 0.9, 0.02, 0.0),
    "laughing": Look(0.15, 0.24, 0.55, 0.05, 0.0),
    "surprised": Look(-0.02, 0.26, 1.45, 0.14, 0.0),
    "sad": Look(-0.09, 0.0, 0.75, 0.03, 0.1),
    "angry": Look(-0.05, 0.0, 0.8, -0.05, -0.13),
}


class Face:
    """The places of a person's features under a scene's pose and expression."""

    def __init__(self, who: Identity, scene: Scene) -> None:
        self.who, self.scene, self.look = who, scene, LOOKS[scene.expression]
        self.skin = who.skin_colour()
        self.shade = mix(self.skin * 0.72, (150, 60, 50), 0.12)
        slim = 0.05 if who.woman else 0.0
        self.half = 0.68 + 0.17 * who.width - slim
        self.eye_y = -0.04
        self.eye_x = self.half * (0.40 + 0.14 * who.eye_spacing)
        self.eye_rx = 0.145 + 0.065 * who.eye_size + (0.015 if who.woman else 0)
        self.nose_y = 0.27 + 0.13 * who.nose_length
        self.mouth_y = self.nose_y + 0.21 + 0.04 * who.lips
        self.mouth_rx = 0.20 + 0.11 * who.mouth_width + 0.5 * max(0.0, self.look.smile) * 0.5
        if scene.expression == "surprised":
            self.mouth_rx *= 0.6
        self.turn = 0.09 * scene.yaw
        self.iris = EYES[who.eyes]
        hair = who.hair_colour()
        self.brow = mix(hair, DARK, 0.35 if who.hair not in ("grey", "white") else 0.1)

    def widths(self, y: Points) -> Points:
        """Half the head's width at the heights y."""
        who = self.who
        square = 1.9 + 1.7 * who.jaw + (0.0 if who.woman else 0.5)
        pointed = 0.5 + 0.22 * (1 - who.chin)
        below = (1 - np.clip(y, 0, 1) ** square) ** pointed
        above = np.sqrt(1 - np.clip(-y, 0, 1) ** 2.3)
        return self.half * np.where(y > 0, below, above)

    def outline(self, grow: float = 1.0, top: float = -1.0, bottom: float = 1.0) -> Points:
        """The head's left side between two heights, and its mirror image."""
        angles = np.linspace(np.arcsin(top), np.arcsin(bottom), 20)
        y = np.sin(angles)
        left = np.stack([-self.widths(y), y], axis=1) * grow
        return np.vstack([left, (left * (-1, 1))[::-1]])

    def eye(self, side: int) -> tuple[float, float, float]:
        """Centre and half width; the eye that is turned away looks narrower."""
        narrow = 1 - 0.1 * max(0.0, side * self.scene.yaw)
        return side * self.eye_x + self.turn, self.eye_y, self.eye_rx * narrow

    def landmarks(self) -> Points:
        """`(5, 2)`: left and right eye, nose, left and right corner of the mouth."""
        corner = self.mouth_y - self.look.smile
        eyes = [self.eye(side)[:2] for side in (-1, 1)]
        nose = (self.turn * 1.6, self.nose_y - 0.03)
        mouth = [(side * self.mouth_rx + self.turn, corner) for side in (-1, 1)]
        return np.array([*eyes, nose, *mouth])


def draw_skull(canvas: Canvas, face: Face) -> None:
    """Ears and the bare head."""
    who = face.who
    for side in (-1, 1):
        x = side * face.half * 0.99 - face.turn * 0.5
        rx, ry = 0.09 + 0.07 * who.ears, 0.17 + 0.1 * who.ears
        canvas.disc(x, 0.08, rx, ry, face.skin * 0.93)
        canvas.disc(x + side * 0.02, 0.08, rx * 0.5, ry * 0.6, face.shade)
        if who.earrings:
            canvas.disc(x + side * 0.02, 0.1 + ry, 0.055, 0.07, (250, 208, 80))
    canvas.fill(face.outline(), face.skin)


def draw_features(canvas: Canvas, face: Face) -> None:
    """Everything inside the face, back to front."""
    _cheeks(canvas, face)
    _beard(canvas, face)
    _nose(canvas, face)
    _mouth(canvas, face)
    for side in (-1, 1):
        _eye(canvas, face, side)
        _brow(canvas, face, side)
    _marks(canvas, face)
    _glasses(canvas, face)


def _cheeks(canvas: Canvas, face: Face) -> None:
    blush = mix(face.skin, (226, 90, 80), 0.16 if face.who.woman else 0.09)
    for side in (-1, 1):
        canvas.disc(side * face.half * 0.58 + face.turn, 0.33, 0.17, 0.12, blush)
        if face.who.old:
            fold = [(side * x + face.turn, y) for x, y in ((0.2, 0.3), (0.3, 0.42), (0.34, 0.56))]
            canvas.line(curve(fold, 3), face.shade, 0.025)
            bag = [(side * (face.eye_x + dx) + face.turn, 0.1 + dy) for dx, dy in _BAG]
            canvas.line(curve(bag, 3), face.shade, 0.02)
    if face.who.old:
        for y in (-0.5, -0.4):
            canvas.line(curve([(-0.3, y), (face.turn, y - 0.04), (0.3, y)], 3), face.shade, 0.02)


_BAG = ((-0.13, -0.01), (0.0, 0.05), (0.13, 0.0))


def _nose(canvas: Canvas, face: Face) -> None:
    rx = 0.085 + 0.075 * face.who.nose_width + (0 if face.who.woman else 0.015)
    tip, lean = face.turn * 1.6, 1 if face.scene.light < 0 else -1
    bridge = [(face.turn + lean * 0.06, -0.08), (tip + lean * 0.07, face.nose_y * 0.6)]
    side = curve([*bridge, (tip + lean * rx, face.nose_y)], 4)
    canvas.fill(np.vstack([side, [(tip, face.nose_y), (tip, 0.05)]]), face.skin * 0.9)
    canvas.disc(tip, face.nose_y - 0.04, rx * 0.75, 0.07, tint(face.skin, 1.12))
    wing = [(tip + x * rx, face.nose_y + y) for x, y in _NOSE_WING]
    canvas.line(curve(wing, 4), face.shade * 0.8, 0.035)


_NOSE_WING = (
    (-1.0, -0.05),
    (-0.85, 0.03),
    (-0.4, 0.03),
    (0.0, 0.06),
    (0.4, 0.03),
    (0.85, 0.03),
    (1.0, -0.05),
)


def _mouth(canvas: Canvas, face: Face) -> None:
    look, who, rx = face.look, face.who, face.mouth_rx
    x, y, full = face.turn, face.mouth_y, 0.035 + 0.06 * who.lips
    red = mix(face.skin, (186, 36, 58) if who.woman else (160, 70, 66), 0.6 if who.woman else 0.4)
    left, right = (x - rx, y - look.smile), (x + rx, y - look.smile)
    sag = 0.5 * look.smile
    upper = curve(
        [
            left,
            (x - rx * 0.35, y - full + sag - 0.02),
            (x, y - full * 0.7 + sag),
            (x + rx * 0.35, y - full + sag - 0.02),
            right,
        ],
        4,
    )
    low = y + look.opening + sag
    lower = curve(
        [
            right,
            (x + rx * 0.5, low + full),
            (x, low + full * 1.4),
            (x - rx * 0.5, low + full),
            left,
        ],
        4,
    )
    canvas.fill(np.vstack([upper, lower[1:-1]]), red)
    inner_top = curve([left, (x, y + sag), right], 6)
    if not look.opening:
        canvas.line(inner_top, mix(red, DARK, 0.75), 0.035)
        return
    inner_low = curve([right, (x, low), left], 6)
    canvas.fill(np.vstack([inner_top, inner_low[1:-1]]), (92, 22, 30))
    if face.scene.expression == "laughing":
        teeth = np.vstack([inner_top, mix(inner_top, inner_low[::-1], 0.45)[::-1][1:-1]])
        canvas.fill(teeth, TEETH)


def _eye(canvas: Canvas, face: Face, side: int) -> None:
    x, y, rx = face.eye(side)
    lids = face.look.lids * (0.085 + 0.045 * face.who.eye_size)
    slant = 0.06 * (face.who.eye_slant - 0.5) * side
    t = np.linspace(-1, 1, 9)
    bow = 1 - np.abs(t) ** 2.2
    upper = np.stack([x + rx * t, y - lids * bow - slant * t], axis=1)
    lower = np.stack([x + rx * t, y + 0.75 * lids * bow - slant * t], axis=1)
    canvas.fill(np.vstack([upper - (0, 0.03), lower[::-1]]), face.skin * 0.86)
    canvas.fill(np.vstack([upper, lower[::-1]]), (250, 248, 246))
    for radius, colour in ((0.098, face.iris), (0.048, (16, 12, 14))):
        ring = ellipse(x + face.turn * 0.35, y, radius, radius)
        ring[:, 1] = np.clip(ring[:, 1], *_lids_at(ring[:, 0], upper, lower))
        canvas.fill(ring, colour)
    canvas.disc(x + face.turn * 0.35 + 0.035, y - 0.03, 0.022, 0.022, (255, 255, 255))
    canvas.line(upper, DARK, 0.05 if face.who.woman else 0.032)
    if face.who.woman:
        end = upper[-1] if side > 0 else upper[0]
        canvas.line(np.array([end, (end[0] + side * 0.07, end[1] - 0.05)]), DARK, 0.04)


def _lids_at(x: Points, upper: Points, lower: Points) -> tuple[Points, Points]:
    return np.interp(x, upper[:, 0], upper[:, 1]), np.interp(x, lower[:, 0], lower[:, 1])


def _brow(canvas: Canvas, face: Face, side: int) -> None:
    who, look = face.who, face.look
    x, y, rx = face.eye(side)
    thick = 0.022 + 0.05 * who.brow_thickness + (0 if who.woman else 0.018)
    y -= 0.20 + 0.03 * who.eye_size + look.brow_lift
    slant = 0.1 * (who.brow_slant - 0.5)
    inner = (x - side * rx * 1.0, y + 0.02 - look.brow_inner + slant)
    middle = (x + side * rx * 0.25, y - 0.045)
    outer = (x + side * rx * 1.3, y + 0.03 - slant + 0.4 * look.brow_inner)
    line = curve([inner, middle, outer], 5)
    half = np.linspace(1, 0.35, len(line))[:, None] * (0, thick)
    canvas.fill(np.vstack([line - half, (line + half)[::-1]]), face.brow)


def _beard(canvas: Canvas, face: Face) -> None:
    kind, hair = face.who.beard, face.who.hair_colour() * 0.9
    x, y, rx = face.turn, face.mouth_y, face.mouth_rx
    if kind in ("full", "stubble"):
        colour = hair if kind == "full" else mix(face.skin, hair, 0.32)
        grow = 1.06 if kind == "full" else 1.0
        outer = face.outline(grow, top=0.05)
        inside = [(0.9, 0.05), (0.72, 0.38), (0.45, y - 0.17), (0.0, y - 0.13)]
        inner = [(x + side * w * face.half, h) for side in (1, -1) for w, h in inside[::side]]
        canvas.fill(np.vstack([outer, curve(inner, 3)]), colour)
    if kind == "goatee":
        canvas.disc(x * 0.8, 0.87, 0.24, 0.2, hair)
    if kind in ("moustache", "goatee", "full"):
        top = y - 0.1 - 0.3 * max(0.0, face.look.smile)
        ends = [(x - rx * 1.15, y + 0.03), (x - 0.1, top - 0.02), (x, top + 0.02)]
        left = curve(ends, 4)
        right = (left * (-1, 1) + (2 * x, 0))[::-1]
        canvas.fill(np.vstack([left, right, [(x, top + 0.09)]]), hair * 0.92)


def _marks(canvas: Canvas, face: Face) -> None:
    if face.who.freckles:
        spot = mix(face.skin, (150, 78, 40), 0.45)
        for dx, dy in _FRECKLES:
            for side in (-1, 1):
                canvas.disc(side * (0.3 + dx) + face.turn, 0.2 + dy, 0.025, 0.025, spot)
    if face.who.mole:
        mx, my = _MOLES[face.who.mole - 1]
        canvas.disc(mx * face.half + face.turn, my, 0.04, 0.04, (64, 36, 30))


_FRECKLES = ((-0.12, 0.0), (-0.02, 0.06), (0.08, 0.0), (0.15, 0.08), (0.03, 0.14), (-0.1, 0.12))
_MOLES = ((-0.5, 0.48), (0.5, 0.45), (-0.45, 0.2), (0.3, 0.75))


def _glasses(canvas: Canvas, face: Face) -> None:
    if face.who.glasses == "none":
        return
    colour, r = FRAMES[face.who.frame], face.eye_x * 0.74
    for side in (-1, 1):
        x = side * face.eye_x + face.turn
        lens = ellipse(x, 0.0, r, r * 0.95)
        if face.who.glasses == "square":
            lens = _rounded(x, 0.0, r * 1.02, r * 0.72)
        canvas.line(np.vstack([lens, lens[:2]]), colour, 0.07)
        ends = [(x + side * r, -0.04), (side * face.half * 0.98, -0.06)]
        canvas.line(np.array(ends), colour, 0.06)
    gap = face.eye_x - r
    bridge = [(face.turn - gap, 0.0), (face.turn, -0.05), (face.turn + gap, 0.0)]
    canvas.line(curve(bridge, 3), colour, 0.06)


def _rounded(x: float, y: float, rx: float, ry: float) -> NDArray[np.float64]:
    circle = ellipse(0, 0, 1, 1)
    return np.sign(circle) * np.abs(circle) ** 0.4 * (rx, ry) + (x, y)

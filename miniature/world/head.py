"""A face's geometry, and the bare head. The unit is half the head: chin at y = 1, crown at -1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Points, curve, mix, tint
from .identity import EYES, Identity
from .scene import Scene

DARK = (44.0, 26.0, 28.0)
GOLD = (240.0, 196.0, 84.0)


@dataclass(frozen=True)
class Look:
    """The effect of an expression on eyes, brows and mouth."""

    smile: float  # how far the corners of the mouth rise
    opening: float
    lids: float  # openness of the eyes
    brow_lift: float
    brow_inner: float  # how far their inner ends rise beyond brow_lift


LOOKS = {
    "serious": Look(0.0, 0.0, 1.0, 0.0, 0.0),
    "smiling": Look(0.11, 0.0, 0.88, 0.02, 0.0),
    "laughing": Look(0.12, 0.17, 0.72, 0.05, 0.0),
    "surprised": Look(-0.01, 0.19, 1.28, 0.13, 0.0),
    "sad": Look(-0.05, 0.0, 0.8, 0.02, 0.085),
    "angry": Look(-0.035, 0.0, 0.86, -0.045, -0.095),
}


class Face:
    """The places of a person's features, given the pose and expression of a scene."""

    def __init__(self, who: Identity, scene: Scene) -> None:
        self.who, self.scene, self.look = who, scene, LOOKS[scene.expression]
        self.skin = who.skin_colour()
        self.shade = mix(self.skin * 0.68, (150, 54, 44), 0.16)
        self.half = 0.67 + 0.15 * who.width - (0.035 if who.woman else 0.0)
        self.eye_y = 0.0
        self.eye_x = self.half * (0.41 + 0.12 * who.eye_spacing)
        self.eye_rx = 0.162 + 0.05 * who.eye_size + (0.015 if who.woman else 0)
        self.nose_y = 0.28 + 0.11 * who.nose_length
        self.mouth_y = self.nose_y + 0.2 + 0.03 * who.lips
        self.mouth_rx = 0.19 + 0.09 * who.mouth_width + 0.25 * max(0.0, self.look.smile)
        if scene.expression == "surprised":
            self.mouth_rx *= 0.58
        self.turn = 0.09 * scene.yaw
        self.iris = np.array(EYES[who.eyes])
        self.hair = who.hair_colour()
        self.brow = mix(self.hair, DARK, 0.35 if who.hair not in ("grey", "white") else 0.2)

    def widths(self, y: Points) -> Points:
        """Return half the head's width at the heights y."""
        who = self.who
        square = 2.0 + 1.5 * who.jaw + (0.0 if who.woman else 0.5)
        pointed = 0.54 + 0.2 * (1 - who.chin)
        below = (1 - np.clip(y, 0, 1) ** square) ** pointed
        above = np.sqrt(1 - np.clip(-y, 0, 1) ** 2.4)
        return self.half * np.where(y > 0, below, above)

    def outline(self, grow: float = 1.0, top: float = -1.0, bottom: float = 1.0) -> Points:
        """Return the head's outline between two heights: its left side and the mirror image."""
        angles = np.linspace(np.arcsin(top), np.arcsin(bottom), 26)
        y = np.sin(angles)
        left = np.stack([-self.widths(y), y], axis=1) * grow
        return np.vstack([left, (left * (-1, 1))[::-1]])

    def eye(self, side: int) -> tuple[float, float, float]:
        """Return an eye's centre and half width; the eye that is turned away looks narrower."""
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
    """Ears, the bare head, and the softer forms of the face."""
    for side in (-1, 1):
        _ear(canvas, face, side)
    canvas.fill(face.outline(), face.skin)
    warm = mix(face.skin, (232, 84, 76), 0.55)
    light, turn = tint(face.skin, 1.22), face.turn
    for side in (-1, 1):
        canvas.glow(side * (face.eye_x + 0.02) + turn, -0.03, 0.23, 0.17, face.shade, 0.3)
        blush = 0.5 if face.who.woman else 0.32
        canvas.glow(side * face.half * 0.6 + turn, 0.32, 0.2, 0.15, warm, blush)
        canvas.glow(side * face.half * 0.56 + turn, 0.2, 0.14, 0.07, light, 0.3)
    canvas.glow(turn, -0.42, 0.4, 0.22, light, 0.4)
    canvas.glow(turn, 0.86, 0.17, 0.09, light, 0.35)
    if face.who.old:
        _wrinkles(canvas, face)


def _ear(canvas: Canvas, face: Face, side: int) -> None:
    who = face.who
    rx, ry = 0.1 + 0.06 * who.ears, 0.17 + 0.09 * who.ears
    x, y = side * face.half * 0.97 - face.turn * 0.5, 0.07
    shell = [(0.2, -0.8), (0.75, -1.0), (1.0, -0.55), (0.92, 0.1), (0.62, 0.75), (0.2, 1.0)]
    points = curve([(x + side * rx * u, y + ry * v) for u, v in shell], 4)
    canvas.fill(np.vstack([points, [(x - side * rx, y + ry), (x - side * rx, y - ry)]]), face.skin)
    canvas.glow(x + side * rx * 0.45, y, rx * 0.45, ry * 0.6, face.shade, 0.75)
    if who.earrings:
        canvas.disc(x + side * rx * 0.4, y + ry * 1.12, 0.05, 0.055, GOLD)
        canvas.disc(
            x + side * rx * 0.4 - 0.015, y + ry * 1.12 - 0.018, 0.016, 0.016, (255, 248, 220)
        )


def _wrinkles(canvas: Canvas, face: Face) -> None:
    fold = mix(face.skin, face.shade, 0.75)
    for side in (-1, 1):
        cheek = [(side * x + face.turn, y) for x, y in ((0.19, 0.33), (0.29, 0.44), (0.32, 0.58))]
        canvas.line(curve(cheek, 4), fold, 0.022)
        bag = ((-0.12, 0.13), (0.0, 0.18), (0.12, 0.14))
        below = [(side * (face.eye_x + x) + face.turn, y) for x, y in bag]
        canvas.line(curve(below, 4), fold, 0.018)
    for y in (-0.46, -0.36):
        line = [(-0.28 + face.turn, y), (face.turn, y - 0.03), (0.28 + face.turn, y)]
        canvas.line(curve(line, 4), fold, 0.018)

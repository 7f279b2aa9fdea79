"""Draws what lies inside a face: eyes, brows, nose, mouth, beard, marks and glasses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Points, curve, ellipse, mix, tint
from .head import DARK, Face
from .identity import FRAMES

TEETH = (250.0, 246.0, 240.0)


def draw_features(canvas: Canvas, face: Face) -> None:
    """Everything inside the face, back to front."""
    if face.who.freckles:
        _freckles(canvas, face)
    _beard(canvas, face)
    _nose(canvas, face)
    _mouth(canvas, face)
    _moustache(canvas, face)
    for side in (-1, 1):
        _eye(canvas, face, side)
        _brow(canvas, face, side)
    if face.who.mole:
        mx, my = _MOLES[face.who.mole - 1]
        canvas.disc(mx * face.half + face.turn, my, 0.036, 0.036, mix(face.shade, DARK, 0.7))
    if face.who.glasses != "none":
        _glasses(canvas, face)


_MOLES = ((-0.5, 0.5), (0.5, 0.47), (-0.5, 0.24), (0.34, 0.78))


def _nose(canvas: Canvas, face: Face) -> None:
    rx = 0.09 + 0.06 * face.who.nose_width + (0 if face.who.woman else 0.015)
    tip, y, lean = face.turn * 1.6, face.nose_y, 1 if face.scene.light < 0 else -1
    light = tint(face.skin, 1.35)
    for share in (0.25, 0.55, 0.85):
        x = face.turn * (1 - share) + tip * share
        canvas.glow(x + lean * (0.055 + 0.035 * share), y * share, 0.045, 0.1, face.shade, 0.3)
    canvas.glow(face.turn * 1.3 - lean * 0.015, y * 0.45, 0.03, 0.17, light, 0.5)
    canvas.glow(tip, y + 0.06, rx * 1.15, 0.05, face.shade, 0.6)
    canvas.glow(tip - lean * 0.015, y - 0.05, rx * 0.5, 0.055, light, 0.6)
    line = mix(face.skin, face.shade, 0.8)
    for side in (-1, 1):
        wing = [(1.0, -0.055), (1.08, -0.02), (0.98, 0.02), (0.8, 0.026)]
        canvas.line(curve([(tip + side * rx * u, y + v) for u, v in wing], 4), line, 0.024)
        canvas.disc(tip + side * rx * 0.48, y + 0.018, rx * 0.24, 0.018, face.shade * 0.66)
    under = [(tip - rx * 0.3, y + 0.035), (tip, y + 0.05), (tip + rx * 0.3, y + 0.035)]
    canvas.line(curve(under, 4), line, 0.022)


def _mouth(canvas: Canvas, face: Face) -> None:
    look, who, rx = face.look, face.who, face.mouth_rx
    x, y, full = face.turn, face.mouth_y, 0.036 + 0.05 * who.lips
    red = mix(face.skin, (190, 40, 60) if who.woman else (164, 72, 66), 0.58 if who.woman else 0.4)
    left, right = (x - rx, y - look.smile), (x + rx, y - look.smile)
    sag, low = 0.35 * look.smile, y + look.opening + 0.35 * look.smile
    top = [
        left,
        (x - rx * 0.42, y - full + sag * 0.6 - 0.012),
        (x - rx * 0.1, y - full * 0.9 + sag),
    ]
    peak = [
        (x, y - full * 0.72 + sag),
        (2 * x - top[2][0], top[2][1]),
        (2 * x - top[1][0], top[1][1]),
    ]
    upper = curve([*top, *peak, right], 4)
    bottom = [
        (x + rx * (0.74 if look.opening else 0.55), low + full * 0.92 - 0.16 * look.opening),
        (x, low + full * 1.45),
    ]
    lower = curve([right, *bottom, (2 * x - bottom[0][0], bottom[0][1]), left], 5)
    canvas.glow(x, low + full * 1.7 + 0.04, rx * 0.7, 0.045, face.shade, 0.45)
    canvas.fill(np.vstack([upper, lower[1:-1]]), red)
    inner = curve(
        [left, (x - rx * 0.4, y + sag * 1.1), (x, y + sag), (x + rx * 0.4, y + sag * 1.1), right], 5
    )
    if look.opening:
        _open(
            canvas,
            face,
            inner,
            curve(
                [right, (x + rx * 0.68, low - 0.045), (x, low), (x - rx * 0.68, low - 0.045), left],
                5,
            ),
            red,
        )
    else:
        canvas.fill(np.vstack([upper, inner[::-1][1:-1]]), red * 0.88)
        canvas.line(inner, mix(red, DARK, 0.72), 0.03)
    canvas.glow(x, low + full * 0.75, rx * 0.4, full * 0.35, tint(red, 1.5), 0.5)
    for side, (cx, cy) in ((-1, left), (1, right)):
        canvas.glow(cx + side * 0.02, cy + 0.01, 0.045, 0.045, face.shade * 0.9, 0.5)


def _open(canvas: Canvas, face: Face, top: Points, low: Points, red: Points) -> None:
    """The inside of a mouth: dark, a tongue, and teeth if it laughs."""
    canvas.fill(np.vstack([top, low[1:-1]]), (88, 22, 32))
    across = low[::-1]
    middle = mix(top, across, 0.62)[4:-4]
    canvas.fill(np.vstack([middle, across[4:-4][::-1]]), (206, 92, 98))
    if face.scene.expression == "laughing":
        canvas.fill(np.vstack([top, mix(top, across, 0.42)[::-1][1:-1]]), TEETH)
    canvas.line(top, mix(red, DARK, 0.4), 0.018)


def _eye(canvas: Canvas, face: Face, side: int) -> None:
    x, y, rx = face.eye(side)
    woman = face.who.woman
    lids = face.look.lids * (0.112 + 0.04 * face.who.eye_size)
    slant = 0.07 * (face.who.eye_slant - 0.45) * side
    t = np.linspace(-1, 1, 17)
    bow = 1 - np.abs(t) ** 2.3
    upper = np.stack([x + rx * t, y - lids * bow - slant * t], axis=1)
    lower = np.stack([x + rx * t, y + 0.66 * lids * bow - slant * t], axis=1)
    fold = mix(face.skin, face.shade, 0.85)
    canvas.line((upper - (0, 0.062))[2:-2], fold, 0.02)
    canvas.fill(np.vstack([upper, lower[::-1]]), (252, 250, 248))
    gaze = x + face.turn * 0.35
    for dy, radius, colour in (
        (0.0, 0.112, face.iris * 0.5),
        (0.0, 0.094, face.iris),
        (0.028, 0.06, tint(face.iris, 1.32)),
        (0.0, 0.05, np.array((18.0, 13.0, 16.0))),
    ):
        ring = ellipse(gaze, y + dy, radius, radius)
        ring[:, 1] = np.clip(ring[:, 1], *_lids_at(ring[:, 0], upper, lower))
        canvas.fill(ring, colour)
    canvas.shadow(np.vstack([upper, (upper + np.array((0, 0.04)))[::-1]]), (70, 56, 70), 0.4, 0.02)
    canvas.disc(gaze - 0.034, y - 0.034, 0.03, 0.03, (255, 255, 255))
    canvas.disc(gaze + 0.04, y + 0.035, 0.014, 0.014, (255, 255, 255))
    canvas.line(lower[2:-2], fold, 0.016)
    thick = (0.05 if woman else 0.034) * (0.45 + 0.55 * np.clip(side * t + 0.6, 0, 1))
    if woman:
        flick = np.where(side * t > 0.8, 0.045, 0.0)
        upper = upper + np.stack([side * flick, -flick * 0.7], axis=1)
    lash = np.vstack(
        [upper + np.array((0, 0.008)), (upper - np.stack([0 * t, thick], axis=1))[::-1]]
    )
    canvas.fill(lash, DARK)


def _lids_at(x: Points, upper: Points, lower: Points) -> tuple[Points, Points]:
    return np.interp(x, upper[:, 0], upper[:, 1]), np.interp(x, lower[:, 0], lower[:, 1])


def _brow(canvas: Canvas, face: Face, side: int) -> None:
    who, look = face.who, face.look
    x, y, rx = face.eye(side)
    thick = 0.022 + 0.034 * who.brow_thickness + (0 if who.woman else 0.014)
    y -= 0.215 + 0.02 * who.eye_size + look.brow_lift
    slant = 0.09 * (who.brow_slant - 0.5)
    inner = (x - side * rx * 0.98, y + 0.025 - look.brow_inner + slant)
    middle = (x + side * rx * 0.35, y - 0.04)
    outer = (x + side * rx * 1.25, y + 0.035 - slant + 0.4 * look.brow_inner)
    line = curve([inner, middle, outer], 7)
    taper = np.concatenate([np.linspace(0.75, 1, 5), np.linspace(1, 0.2, len(line) - 5)])
    half = taper[:, None] * (0, thick)
    canvas.fill(np.vstack([line - half, (line + half)[::-1]]), face.brow)


def _beard_colour(face: Face) -> Points:
    """Return a colour near the hair's; a quite black beard would look like a hole."""
    return mix(mix(face.hair, face.skin, 0.2), (120, 84, 62), 0.12)


def _beard(canvas: Canvas, face: Face) -> None:
    kind, colour = face.who.beard, _beard_colour(face)
    x, y = face.turn, face.mouth_y
    inside = [(0.93, 0.02), (0.83, 0.3), (0.6, y - 0.14), (0.3, y - 0.12), (0.0, y - 0.1)]
    sides = [
        (x * min(1, 2 - 2 * w) + side * w * face.half, h)
        for side in (1, -1)
        for w, h in inside[::side]
    ]
    if kind == "stubble":
        area = np.vstack([face.outline(0.97, top=0.1), curve(sides, 3)])
        canvas.shadow(area, mix(face.skin * 0.8, face.hair, 0.45), 0.55, 0.05)
    if kind == "full":
        area = np.vstack([face.outline(1.05, top=0.05), curve(sides, 3)])
        canvas.shadow(area, colour, 0.8, 0.06)
        canvas.fill(area, colour)
        for n, share in enumerate(np.linspace(-0.85, 0.85, 13)):
            end = face.widths(np.array(0.72))
            top, low = (
                (share * face.half * 0.92, y + 0.06 + 0.1 * abs(share)),
                (share * end, 0.98 - 0.3 * share**2),
            )
            start = (top[0] + x * 0.5, top[1] - 0.25 * abs(share))
            strand = curve(
                [start, ((start[0] + low[0]) / 2 * 1.04, (start[1] + low[1]) / 2), low], 3
            )
            canvas.line(strand, tint(colour, (1.14, 0.82)[n % 2]), 0.022)
    if kind == "goatee":
        chin = [(0.0, y + 0.14), (0.16, y + 0.13), (0.21, 0.84), (0.13, 1.0), (0.0, 1.05)]
        half = curve([(x * 0.8 + u, v) for u, v in chin], 4)
        canvas.fill(np.vstack([half, (half * (-1, 1) + (1.6 * x, 0))[::-1]]), colour)
        for n, u in enumerate((-0.12, -0.06, 0.0, 0.06, 0.12)):
            hair = np.array([(x * 0.8 + u, y + 0.17), (x * 0.8 + u * 0.8, 1.0)])
            canvas.line(hair, tint(colour, (1.15, 0.82)[n % 2]), 0.02)


def _moustache(canvas: Canvas, face: Face) -> None:
    if face.who.beard not in ("moustache", "goatee", "full"):
        return
    x, y, rx, colour = face.turn, face.mouth_y, face.mouth_rx, _beard_colour(face)
    y -= 0.3 * max(0.0, face.look.smile)
    wide = max(rx, 0.2) * 1.16
    rim = [(0.0, y - 0.105), (wide * 0.4, y - 0.12), (wide * 0.8, y - 0.07), (wide, y + 0.03)]
    back = [(wide * 0.7, y - 0.015), (wide * 0.35, y - 0.045), (0.0, y - 0.05)]
    half = np.vstack([curve(rim, 4), curve(back, 4)])
    for side in (-1, 1):
        canvas.fill(half * (side, 1) + (x, 0), colour)
        for n, drop in enumerate((0.015, 0.04)):
            strand = curve([(u * 0.9, v + drop) for u, v in rim[1:]], 4)
            canvas.line(strand * (side, 1) + (x, 0), tint(colour, (1.18, 0.8)[n]), 0.018)


_FRECKLES = ((-0.12, 0.0), (-0.02, 0.06), (0.08, 0.0), (0.15, 0.08), (0.03, 0.14), (-0.1, 0.12))


def _freckles(canvas: Canvas, face: Face) -> None:
    spot = mix(face.skin, (150, 78, 40), 0.5)
    for dx, dy in _FRECKLES:
        for side in (-1, 1):
            canvas.glow(side * (0.31 + dx) + face.turn, 0.2 + dy, 0.024, 0.024, spot, 0.9)


def _glasses(canvas: Canvas, face: Face) -> None:
    colour, r = FRAMES[face.who.frame], min(face.eye_x * 0.8, face.eye_rx * 1.5)
    for side in (-1, 1):
        x, y = side * face.eye_x + face.turn, 0.015
        lens = ellipse(x, y, r, r * 0.96)
        if face.who.glasses == "square":
            lens = _rounded(x, y, r * 1.04, r * 0.76)
        glare = np.array([(-0.5, -0.62), (-0.1, -0.72), (-0.5, 0.25), (-0.72, 0.1)]) * r + (x, y)
        canvas.shadow(glare, (255, 255, 255), 0.35, 0.012)
        canvas.line(np.vstack([lens, lens[:2]]), colour, 0.052)
        ends = [(x + side * r, y - 0.03), (side * face.half * 0.99, y - 0.05)]
        canvas.line(np.array(ends), colour, 0.048)
    gap = face.eye_x - r
    bridge = [(face.turn - gap, 0.0), (face.turn, -0.045), (face.turn + gap, 0.0)]
    canvas.line(curve(bridge, 4), colour, 0.048)


def _rounded(x: float, y: float, rx: float, ry: float) -> NDArray[np.float64]:
    circle = ellipse(0, 0, 1, 1)
    return np.sign(circle) * np.abs(circle) ** 0.4 * (rx, ry) + (x, y)

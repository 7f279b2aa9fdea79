"""What the face nets found, drawn for the user to check.

Everything is drawn after the photo was scaled. So lines and letters do not depend on the photo's
size. Photos are BGR, as in `face`; colours are RGB, as Pillow has them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from .face import Face, Photo

Colour = tuple[int, int, int]

CHOSEN: Colour = (64, 220, 96)
OTHER: Colour = (255, 190, 60)
WRONG: Colour = (255, 96, 84)
_IMAGE_PIXEL = 12
"""Bytes: three channels in float32."""
_INK: Colour = (16, 16, 20)
_GROUND: Colour = (32, 32, 38)


@dataclass(frozen=True, eq=False)
class Mark:
    """A face, and what is written on it."""

    face: Face
    text: str
    colour: Colour


def fit_side(side: int, count: int, area: float, limit: int) -> int:
    """Return a side at which `count` pictures take at most `limit` bytes as an IMAGE batch.

    Args:
        side: the result if there is room.
        area: a picture's number of pixels, divided by that of a square of the same side.
    """
    return max(1, min(side, math.isqrt(int(limit / (_IMAGE_PIXEL * count * area)))))


def draw_faces(photo: Photo, marks: Sequence[Mark], side: int, caption: str = "") -> Photo:
    """Draw boxes, landmarks and texts into a copy whose longer side is `side` pixels long."""
    scale = side / max(photo.shape[:2])
    height, width = (max(1, round(length * scale)) for length in photo.shape[:2])
    picture = _to_picture(photo).resize((width, height), Image.Resampling.LANCZOS)
    for mark in reversed(marks):  # the first on top
        _draw_mark(picture, mark, scale)
    if caption:
        _write(picture, caption, (0, height), WRONG)
    return _to_photo(picture)


def lay_out(picture: Photo, crops: Sequence[tuple[str, Photo]], side: int) -> Photo:
    """A picture in a square, and up to two titled crops in a column beside it.

    Returns:
        `(side, side + side // 2, 3)`, whatever the sizes, so that sheets go into one batch.
    """
    cell = side // 2
    sheet = Image.new("RGB", (side + cell, side), _GROUND)
    sheet.paste(ImageOps.pad(_to_picture(picture), (side, side), color=_GROUND))
    for row, (title, crop) in enumerate(crops):
        scaled = _to_picture(crop).resize((cell, cell), Image.Resampling.BICUBIC)
        sheet.paste(scaled, (side, row * cell))
        _write(sheet, title, (side, (row + 1) * cell), OTHER)
    return _to_photo(sheet)


def _draw_mark(picture: Image.Image, mark: Mark, scale: float) -> None:
    draw = ImageDraw.Draw(picture)
    line = max(2, max(picture.size) // 250)
    left, top, right, bottom = (float(edge) * scale for edge in mark.face.box)
    draw.rectangle((left, top, right, bottom), outline=mark.colour, width=line)
    for x, y in mark.face.landmarks * scale:
        draw.ellipse((x - line, y - line, x + line, y + line), fill=mark.colour, outline=_INK)
    _write(picture, mark.text, (left, top), mark.colour)


def _write(picture: Image.Image, text: str, corner: tuple[float, float], ground: Colour) -> None:
    """Write a line on a coloured ground, above and right of a corner, but inside the picture."""
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(14, max(picture.size) // 40))
    left, top, right, bottom = draw.textbbox((0, 0), text, font)
    pad = max(3, max(picture.size) // 180)
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(0, min(corner[0], picture.width - width))
    y = max(0, corner[1] - height)
    draw.rectangle((x, y, x + width, y + height), fill=ground)
    draw.text((x + pad - left, y + pad - top), text, _INK, font)


def _to_picture(photo: Photo) -> Image.Image:
    return Image.fromarray(photo[..., ::-1].copy())


def _to_photo(picture: Image.Image) -> Photo:
    return np.asarray(picture)[..., ::-1].copy()

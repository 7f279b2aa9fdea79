"""Contact sheets: pictures in a grid, with labels.

A sheet is composed of pieces, PIL pictures that are put below and beside one another.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from .faces.face import Photo
from .faces.photo import read_photos, to_image

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

LONGEST_ROW = 8
"""The most pictures in one row if the user does not choose the columns."""

_PAPER, _INK = "white", "black"
_CELL_PER_TEXT, _SMALLEST_TEXT = 16, 10
_HEADING = 1.6
"""The title's text size as a multiple of the labels'."""


def draw_sheet(
    batches: Sequence[Tensor | Sequence[Tensor]],
    labels: Sequence[str],
    row_labels: Sequence[str],
    title: str,
    columns: int,
    cell_size: int,
    gap: int,
    margin: int,
) -> Tensor:
    """Lay batches of pictures out in a grid; each batch begins a new row.

    Args:
        batches: `(n, h, w, c)` each, or several of those, float in 0..1, c 1, 3 or 4. Pictures are
            fitted into the first one's shape; transparent ones are laid on the paper.
        labels: the i-th stands below the i-th picture of every batch; missing ones are blank.
        row_labels: the i-th stands beside the i-th batch; missing ones are blank.
        columns: as `count_columns` takes it.
        cell_size: the longer side of a cell in pixels; 0 for the first picture's own.
        gap: pixels between cells.
        margin: pixels around everything.

    Returns:
        `(1, height, width, 3)` float32 RGB, in steps of 1/255. Pictures that have the cell's size
        are copied without resampling.

    Raises:
        ValueError: as `read_photos`.
    """
    parts = [[batch] if isinstance(batch, Tensor) else batch for batch in batches]
    pictures = [[_to_picture(p) for p in read_photos(b, "picture").values()] for b in parts]
    cell = _choose_cell(pictures[0][0].size, cell_size)
    size = max(_SMALLEST_TEXT, min(cell) // _CELL_PER_TEXT)
    font, heading = ImageFont.load_default(size), ImageFont.load_default(_HEADING * size)
    across = count_columns(max(map(len, pictures)), columns)
    aside = min(cell[0] // 2, max((_measure(label, font) for label in row_labels), default=0))

    rows = []
    for index, batch in enumerate(pictures):
        captions = [_write(label, font, cell[0]) for label in labels[: len(batch)]]
        captions += [_write("", font, cell[0])] * (len(batch) - len(captions))
        cells = [
            _below([_fit(picture, cell), caption], size // 4)
            for picture, caption in zip(batch, captions, strict=True)
        ]
        lines = [_beside(cells[i : i + across], gap) for i in range(0, len(cells), across)]
        row_label = row_labels[index] if index < len(row_labels) else ""
        rows.append(_beside([_write(row_label, font, aside, cell[1]), _below(lines, gap)], size))
    body = _below(rows, gap)
    sheet = _below([_write(title, heading, body.width), body], size)
    framed = ImageOps.expand(sheet, margin, _PAPER)
    return to_image(np.asarray(framed)[..., ::-1])


def count_columns(longest: int, columns: int) -> int:
    """Return the number of columns of a sheet whose longest batch has `longest` pictures.

    Args:
        columns: the user's choice; 0 for one row up to `LONGEST_ROW`, and near square above.
    """
    if columns:
        return min(columns, longest)
    return longest if longest <= LONGEST_ROW else math.ceil(math.sqrt(longest))


def wrap(text: str, font: Font, width: float) -> list[str]:
    """Break a text into lines of at most `width` pixels, inside a word only if it is too long."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines += _break_word(word, font, width)
    return lines


def _break_word(word: str, font: Font, width: float) -> list[str]:
    parts = [word[0]]
    for character in word[1:]:
        if font.getlength(parts[-1] + character) <= width:
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def _to_picture(photo: Photo) -> Image.Image:
    return Image.fromarray(photo[..., ::-1])


def _choose_cell(picture: tuple[int, int], longer_side: int) -> tuple[int, int]:
    scale = longer_side / max(picture) if longer_side else 1
    width, height = (max(1, round(scale * side)) for side in picture)
    return width, height


def _fit(picture: Image.Image, cell: tuple[int, int]) -> Image.Image:
    return ImageOps.pad(picture, cell, Image.Resampling.LANCZOS, _PAPER)


def _measure(text: str, font: Font) -> int:
    return math.ceil(font.getlength(text))


def _write(text: str, font: Font, width: int, height: int = 0) -> Image.Image:
    """Return a piece with centred text. It is higher than `height` if the text needs it."""
    lines = wrap(text, font, width)
    step = math.ceil(1.2 * font.getbbox("Ág")[3])
    used = step * len(lines)
    piece = Image.new("RGB", (width, max(used, height)), _PAPER)
    draw = ImageDraw.Draw(piece)
    for index, line in enumerate(lines):
        top = (piece.height - used) // 2 + step * index
        draw.text((width / 2, top), line, fill=_INK, font=font, anchor="ma")
    return piece


def _below(pieces: Sequence[Image.Image], gap: int) -> Image.Image:
    """Put pieces below one another, flush left; empty ones take no gap."""
    kept = [piece for piece in pieces if piece.height]
    height = sum(piece.height + gap for piece in kept) - gap
    sheet = Image.new("RGB", (max(piece.width for piece in kept), height), _PAPER)
    top = 0
    for piece in kept:
        sheet.paste(piece, (0, top))
        top += piece.height + gap
    return sheet


def _beside(pieces: Sequence[Image.Image], gap: int) -> Image.Image:
    """Put pieces beside one another, flush at the top; empty ones take no gap."""
    kept = [piece for piece in pieces if piece.width]
    width = sum(piece.width + gap for piece in kept) - gap
    sheet = Image.new("RGB", (width, max(piece.height for piece in kept)), _PAPER)
    left = 0
    for piece in kept:
        sheet.paste(piece, (left, 0))
        left += piece.width + gap
    return sheet

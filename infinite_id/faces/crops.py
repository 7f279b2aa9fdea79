"""Regions around faces: masks to place people by, and crops that go back where they came from.

Masks are `(height, width)` float32 in 0..1, as in `face`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import cycle

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .alignment import draw_mask
from .annotate import Colour, Mark, draw_faces
from .face import Face, Photo, Points

Mask = NDArray[np.float32]
Size = tuple[int, int]
"""Height and width in pixels."""

_COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""The palette of Okabe and Ito. Colour-blind people can tell its colours apart."""
_TINT = 0.4


class Shape(Enum):
    """Which part of a person a mask covers."""

    OVAL = "oval"
    BOX = "box"
    COLUMN = "column"


def draw_masks(size: Size, faces: Sequence[Face], shape: Shape, grow: float, feather: int) -> Mask:
    """Draw a mask for each face of a picture: `(faces, height, width)`.

    Args:
        grow: factor on the size of ovals and boxes, about their centres. Columns ignore it: they
            divide the whole picture, with borders midway between neighbours.
        feather: half the width of the soft edge in pixels. Feathered columns still add up to 1.
    """
    if shape is Shape.COLUMN:
        masks = _draw_columns(size, np.array([_centre(face)[0] for face in faces]))
    else:
        draw = draw_mask if shape is Shape.OVAL else _draw_box
        masks = [draw(size, scale_face(face, grow)) for face in faces]
    return np.stack([soften(mask, feather) for mask in masks])


def soften(mask: Mask, feather: int) -> Mask:
    """Blur a mask. Pixels further than `feather` pixels from an edge keep their values."""
    import cv2

    side = 2 * feather + 1
    blurred = cv2.GaussianBlur(mask, (side, side), feather / 2, borderType=cv2.BORDER_REPLICATE)
    return np.clip(blurred, 0, 1, dtype=np.float32)


def _draw_box(size: Size, face: Face) -> Mask:
    left, top, right, bottom = face.box.round().astype(int).clip(0)
    mask = np.zeros(size, np.float32)
    mask[top:bottom, left:right] = 1
    return mask


def _draw_columns(size: Size, centres: NDArray[np.float32]) -> list[Mask]:
    order = np.argsort(centres)
    middles = (centres[order[1:]] + centres[order[:-1]]) / 2
    borders = np.array([0, *middles.round(), size[1]], int).clip(0, size[1])
    masks = [np.zeros(size, np.float32) for _ in centres]
    for rank, index in enumerate(order):
        masks[index][:, borders[rank] : borders[rank + 1]] = 1
    return masks


def draw_overview(photo: Photo, faces: Sequence[Face], masks: Mask) -> Photo:
    """Tint each face's mask in a colour of its own, and number the faces from 1."""
    tinted = photo.astype(np.float32)
    marks = []
    for number, (face, mask, colour) in enumerate(zip(faces, masks, cycle(_COLOURS)), start=1):
        tinted += _TINT * mask[..., None] * (np.array(colour[::-1]) - tinted)
        marks.append(Mark(face, str(number), colour))
    return draw_faces(tinted.round().astype(np.uint8), marks, max(photo.shape[:2]))


def _centre(face: Face) -> Points:
    return face.box.reshape(2, 2).mean(axis=0)


def scale_face(face: Face, factor: float) -> Face:
    """Scale a face about the centre of its box."""
    centre = _centre(face)
    return _map(face, centre * (1 - factor), factor)


def _map(face: Face, shift: Points, factor: float = 1.0) -> Face:
    """Multiply a face's points by the factor, then shift them by `(x, y)`."""
    corners = (face.box.reshape(2, 2) * factor + shift).astype(np.float32)
    landmarks = (face.landmarks * factor + shift).astype(np.float32)
    return replace(face, box=corners.reshape(4), landmarks=landmarks)


@dataclass(frozen=True)
class Square:
    """A square of a picture, in its pixels.

    Along each axis it lies inside the picture, if the picture is long enough. Otherwise it reaches
    out on both sides, and crops show the picture mirrored there.
    """

    left: int
    top: int
    side: int

    def window(self, size: Size) -> tuple[slice, slice]:
        """Rows and columns of the picture that the square covers."""
        height, width = size
        return (
            slice(max(self.top, 0), min(self.top + self.side, height)),
            slice(max(self.left, 0), min(self.left + self.side, width)),
        )

    def inside(self, size: Size) -> tuple[slice, slice]:
        """Rows and columns of the square that the picture covers, from the square's corner."""
        rows, columns = self.window(size)
        return (
            slice(rows.start - self.top, rows.stop - self.top),
            slice(columns.start - self.left, columns.stop - self.left),
        )


@dataclass(frozen=True, eq=False)
class Cut:
    """Where a crop came from.

    Attributes:
        picture: index of the picture.
        square: what was cut out of it.
        mask: what is pasted back, `(height, width)` of the square's window in the picture.
        turn: quarter turns against the clock that make the face upright in its crop.
    """

    picture: int
    square: Square
    mask: Tensor
    turn: int = 0


@dataclass(frozen=True, eq=False)
class FaceCrops:
    """Pictures, and the crops taken from them.

    Attributes:
        pictures: `(n, h, w, c)` as they were, c 3 or 4.
        cuts: one for each crop.
    """

    pictures: Tensor
    cuts: tuple[Cut, ...]


def cut_faces(
    picture: int, size: Size, faces: Sequence[Face], context: float, grow: float, feather: float
) -> list[Cut]:
    """Plan a crop of each face of a picture.

    Args:
        context: side of the crop, as a multiple of the longer side of the face's box.
        grow: factor on the size of the oval that is pasted back.
        feather: half the width of the oval's soft edge, as a multiple of the same side.
    """
    cuts = []
    for face in faces:
        square = _place_around(size, face, context)
        edge = round(feather * max(face.size))
        mask = _draw_paste_mask(size, square, scale_face(face, grow), edge)
        cuts.append(Cut(picture, square, torch.from_numpy(mask), face.turn))
    return cuts


def cut_untouched(picture: int, size: Size, face: Face | None, context: float) -> Cut:
    """Plan a crop with an empty mask, of a face, or of the picture's middle if there is none."""
    if face is None:
        middle = np.array([size[1] / 2, size[0] / 2], np.float32)
        square, turn = place_square(size, middle, min(size)), 0
    else:
        square, turn = _place_around(size, face, context), face.turn
    rows, columns = square.window(size)
    mask = torch.zeros(rows.stop - rows.start, columns.stop - columns.start)
    return Cut(picture, square, mask, turn)


def _place_around(size: Size, face: Face, context: float) -> Square:
    return place_square(size, _centre(face), max(1, round(context * max(face.size))))


def place_square(size: Size, centre: Points, side: int) -> Square:
    """A square about a point `(x, y)`, moved into the picture as far as it fits."""
    height, width = size
    x, y = (float(coordinate) for coordinate in centre)
    return Square(_place_span(width, x, side), _place_span(height, y, side), side)


def _place_span(length: int, middle: float, side: int) -> int:
    if side > length:
        return (length - side) // 2
    return min(max(round(middle - side / 2), 0), length - side)


def _draw_paste_mask(size: Size, square: Square, face: Face, feather: int) -> Mask:
    """Draw a soft oval in the window. It fades out before the window's borders in the picture."""
    height, width = size
    rows, columns = square.window(size)
    window = rows.stop - rows.start, columns.stop - columns.start
    oval = draw_mask(window, _map(face, -np.array([columns.start, rows.start], np.float32)))
    frame = feather + 1
    oval[: frame if rows.start > 0 else 0] = 0
    oval[window[0] - (frame if rows.stop < height else 0) :] = 0
    oval[:, : frame if columns.start > 0 else 0] = 0
    oval[:, window[1] - (frame if columns.stop < width else 0) :] = 0
    return soften(oval, feather)


def crop(image: Tensor, square: Square, size: int, turn: int = 0) -> Tensor:
    """Cut a square out of a picture, turned as a `Cut` says: `(h, w, c)` -> `(size, size, c)`."""
    height, width = image.shape[:2]
    rows = _mirror(height, square.top, square.side)
    columns = _mirror(width, square.left, square.side)
    return resize(torch.rot90(image[rows][:, columns], turn), size)


def crop_mask(cut: Cut, size: Size, side: int) -> Tensor:
    """Return a crop's mask, turned as the crop: `(side, side)`, 0 outside a picture of `size`."""
    mask = torch.zeros(cut.square.side, cut.square.side, 1)
    mask[cut.square.inside(size)] = cut.mask[..., None]
    return rearrange(resize(torch.rot90(mask, cut.turn), side), "h w 1 -> h w")


def _mirror(length: int, start: int, side: int) -> Tensor:
    """Return the indices `start` to `start + side`, mirrored at both ends of the picture."""
    before, after = max(-start, 0), max(start + side - length, 0)
    indices = np.pad(np.arange(length), (before, after), mode="reflect")
    return torch.from_numpy(indices[max(start, 0) :][:side])


def resize(image: Tensor, side: int) -> Tensor:
    """Scale to `(side, side, c)` by Lanczos, without aliasing and without rounding to 8 bit."""
    planes = [
        Image.fromarray(plane).resize((side, side), Image.Resampling.LANCZOS)
        for plane in rearrange(image.float().cpu().numpy(), "h w c -> c h w")
    ]
    scaled = np.stack([np.asarray(plane) for plane in planes], axis=-1)
    return torch.from_numpy(scaled).to(image).clamp(0, 1)


def paste(crops: FaceCrops, refined: Tensor) -> Tensor:
    """Put refined crops back into their pictures, under their masks.

    Pixels with a mask of 0 stay bit for bit, and the alpha channel stays everywhere. A crop that
    was not changed alters the picture only by the error of scaling back and forth. If the crop was
    scaled up by at least 1.3, this is under 0.5/255 on average and 10/255 at the sharpest edges.

    Args:
        refined: `(cuts, side, side, 3)`, any side.

    Returns:
        `(n, h, w, c)`: the pictures, on their device.
    """
    result = crops.pictures.clone()
    size = result.shape[1], result.shape[2]
    for cut, patch in zip(crops.cuts, refined, strict=True):
        window = result[cut.picture][cut.square.window(size)][..., :3]
        scaled = resize(patch[..., :3].to(window), cut.square.side)
        back = torch.rot90(scaled, -cut.turn)[cut.square.inside(size)]
        window.lerp_(back, cut.mask[..., None].to(window))
    return result

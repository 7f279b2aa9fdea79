"""The face that is taken from a photo, or why none is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..adapters.mappers import Crop, Recipe
from ..identities.identity import Source
from . import annotate
from .alignment import align, crop_for_recogniser, cut_middle, draw_mask
from .face import Face, Photo
from .photo import digest, to_image

THUMBNAIL = 128
SHEET = 672
"""The height of a preview in pixels: three times 224, six times 112."""
PREVIEWS = 64 * 2**20
"""The most bytes that all previews of one node take together."""
SMALLEST_FACE = 32
"""The least side of a face in photo pixels. ArcFace sees 112: a smaller face becomes a blur."""


@dataclass(frozen=True, eq=False)
class Choice:
    """A photo, its faces in the order in which they are counted, and which one is wanted.

    `index` counts from 0. The user counts from `first`.
    """

    name: str
    photo: Photo
    faces: list[Face]
    index: int
    first: int

    @property
    def face(self) -> Face:
        """The wanted face, if there is no problem."""
        return self.faces[self.index]

    @property
    def problem(self) -> str:
        """Why there is no usable face; empty if there is one."""
        if not self.faces:
            return (
                f"No face found in {self.name}. Use a photo in which the face is sharp and at "
                "least 60 pixels wide, or raise the detection size in Load Face Analysis, or "
                "lower min_confidence."
            )
        if not 0 <= self.index < len(self.faces):
            return (
                f"No face {self.index + self.first} in {self.name}: it has {len(self.faces)}, "
                f"counted from {self.first}. Choose a lower number."
            )
        width, height = self.face.size
        if min(width, height) < SMALLEST_FACE:
            return (
                f"The face in {self.name} is {width:.0f}x{height:.0f} pixels small; at least "
                f"{SMALLEST_FACE}x{SMALLEST_FACE} are needed to recognise anybody. Use a larger "
                "photo."
            )
        return ""

    def cut(self, size: int, crop: Crop) -> Photo:
        """What the CLIP encoder sees: `(size, size, 3)`."""
        return align(self.photo, self.face, size, crop)

    @property
    def mask(self) -> Any:
        """The face's oval, `(height, width)` in 0..1; zeros if there is a problem."""
        shape = self.photo.shape[:2]
        return np.zeros(shape, np.float32) if self.problem else draw_mask(shape, self.face)

    @property
    def source(self) -> Source:
        """What an identity remembers of this photo."""
        label = f"{self.name}, face of score {self.face.score:.2f}{_say(self.face)}"
        thumbnail = align(self.photo, self.face, THUMBNAIL)[..., ::-1].copy()
        return Source(label, digest(self.photo), torch.from_numpy(thumbnail))

    @property
    def line(self) -> str:
        """For the user: what was taken, or why nothing was."""
        if self.problem:
            return f"Skipped: {self.problem}"
        width, height = self.face.size
        return (
            f"{self.name}: face {self.index + self.first} of {len(self.faces)}, "
            f"{width:.0f}x{height:.0f} pixels, confidence {self.face.score:.2f}{_say(self.face)}"
        )


class WholePhoto(Choice):
    """A photo for an adapter that reads whole pictures: no face was looked for."""

    @property
    def face(self) -> Face:
        """A stand-in for a face: a box of the photo's size, without an embedding."""
        height, width = self.photo.shape[:2]
        box = np.array([0, 0, width, height], np.float32)
        return Face(box, np.zeros((5, 2), np.float32), 1.0, np.zeros(0, np.float32))

    @property
    def problem(self) -> str:
        """Always empty."""
        return ""

    def cut(self, size: int, _crop: Crop) -> Photo:
        """The middle square."""
        return cut_middle(self.photo, size)

    @property
    def mask(self) -> Any:
        """Ones, `(height, width)`."""
        return np.ones(self.photo.shape[:2], np.float32)

    @property
    def source(self) -> Source:
        """What an identity remembers of this photo."""
        thumbnail = cut_middle(self.photo, THUMBNAIL)[..., ::-1].copy()
        return Source(
            f"{self.name}, the whole photo", digest(self.photo), torch.from_numpy(thumbnail)
        )

    @property
    def line(self) -> str:
        """For the user: that the whole photo was taken."""
        return f"{self.name}: the middle square, without looking for a face"


def _say(face: Face) -> str:
    return f", {face.attitude}" if face.attitude else ""


def draw_choices(
    choices: list[Choice], crops: list[Photo], face_analysis: Any, recipe: Recipe
) -> Tensor:
    """Draw each photo with its faces, and what the adapter's nets see of the chosen one.

    Args:
        crops: what the CLIP encoder sees, one for each choice without a problem, in order.

    Returns:
        `(choices, side, 1.5 side, 3)` IMAGE of at most `PREVIEWS` bytes, side at most `SHEET`.
    """
    side = annotate.fit_side(SHEET, len(choices), 1.5, PREVIEWS) // 2 * 2
    seen = iter(crops)
    sheets = []
    for choice in choices:
        shown = [] if choice.problem else _show_crops(choice, next(seen), face_analysis, recipe)
        sheets.append(to_image(annotate.lay_out(_draw(choice, side), shown, side)))
    return torch.cat(sheets)


def _show_crops(
    choice: Choice, crop: Photo, face_analysis: Any, recipe: Recipe
) -> list[tuple[str, Photo]]:
    shown = []
    if recipe.face_width:
        seen = crop_for_recogniser(face_analysis, choice.photo, choice.face)
        shown.append((f"face net sees {len(seen)}x{len(seen)}", seen))
    if recipe.clip_width:
        shown.append((f"CLIP sees {len(crop)}x{len(crop)}", crop))
    return shown


def _draw(choice: Choice, side: int) -> Photo:
    marks = [
        annotate.Mark(
            face,
            f"{number}: {face.score:.2f}{_say(face)}",
            annotate.CHOSEN if not choice.problem and face is choice.face else annotate.OTHER,
        )
        for number, face in enumerate(choice.faces, start=choice.first)
    ]
    return annotate.draw_faces(choice.photo, marks, side, "skipped" if choice.problem else "")

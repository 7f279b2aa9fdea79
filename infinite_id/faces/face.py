"""Faces, and how they are compared and counted.

Photos are `(height, width, 3)` uint8 arrays in BGR order, as OpenCV and InsightFace have them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from ..metrics.scores import cosine, direction

Photo = NDArray[np.uint8]
Points = NDArray[np.float32]
Vector = NDArray[np.float32]

MIN_CONFIDENCE = 0.5
"""InsightFace's own threshold of the detection score."""


class Order(Enum):
    """How the faces of a photo are counted."""

    LARGEST = "largest"
    LEFT_TO_RIGHT = "left to right"
    MOST_SIMILAR = "most similar to reference"


class FaceError(ValueError):
    """No usable face, or no usable face model; the message says which and what to do."""

    __module__ = "infinite_id"  # the page shows it; as a node pack's it would be a path


@dataclass(frozen=True, eq=False)
class Face:
    """One face found in a photo.

    Attributes:
        box: left, top, right, bottom in photo pixels.
        landmarks: `(5, 2)` eyes, nose, mouth corners in photo pixels.
        score: detection confidence, 0..1.
        embedding: `(512,)` float32, as the recogniser gives it (not normalised).
    """

    box: NDArray[np.float32]
    landmarks: Points
    score: float
    embedding: Vector

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the box in photo pixels."""
        left, top, right, bottom = self.box
        return float(right - left), float(bottom - top)

    @property
    def turn(self) -> int:
        """Quarter turns against the clock that make the face upright, as `numpy.rot90` counts."""
        x, y = self.landmarks[3:].mean(axis=0) - self.landmarks[:2].mean(axis=0)
        return round(np.arctan2(-x, y) / (np.pi / 2)) % 4

    @property
    def attitude(self) -> str:
        """For the user: how the face stands in the photo; empty if it is upright."""
        return ("", "on its side", "upside down", "on its side")[self.turn]


def average_person(faces: Sequence[Face]) -> Vector:
    """The mean direction of the faces' embeddings, `(512,)`: each photo counts alike."""
    return np.mean([direction(face.embedding) for face in faces], axis=0)


def sort_faces(faces: Sequence[Face], order: Order, person: Vector | None = None) -> list[Face]:
    """Faces in the order in which they are counted.

    Args:
        person: an embedding; MOST_SIMILAR needs it, the other orders do not read it.
    """
    if order is Order.LEFT_TO_RIGHT:
        return sorted(faces, key=lambda face: float(face.box[0] + face.box[2]))
    if order is Order.MOST_SIMILAR and person is not None:
        return sorted(faces, key=lambda face: cosine(face.embedding, person), reverse=True)
    return sorted(faces, key=lambda face: face.size[0] * face.size[1], reverse=True)

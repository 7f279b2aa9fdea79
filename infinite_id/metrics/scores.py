"""What a picture scores: pure functions of feature vectors.

A picture without a face has no vector and scores NaN; `count` says what that is worth in a mean.
"""

from collections.abc import Sequence
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.floating]
Vectors = NDArray[np.floating]
Scores = NDArray[np.float64]

TORCHMETRICS = 100.0
"""The scale of torchmetrics' and DreamBench++'s CLIP scores; FastComposer's is 1."""


class Measure(Enum):
    """How a face net's vectors are compared, so that 1 is the same face for all nets."""

    COSINE = "cosine"
    DISTANCE = "1 - distance"
    """Euclidean: dlib's net was trained for it."""


def cosine(a: Vector, b: Vector) -> float:
    """The cosine of two vectors `(d,)`: 1 is the same direction, 0 nothing in common."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def direction(vector: Vector) -> Vector:
    """A vector `(d,)`, divided by its length."""
    return vector / np.linalg.norm(vector)


def unit(vectors: Vectors) -> Vectors:
    """Vectors `(n, d)`, each divided by its length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def similarities(
    vectors: Sequence[Vector | None], person: Vector, measure: Measure = Measure.COSINE
) -> Scores:
    """Face similarity of pictures to a person, `(n,)`: at most 1, NaN if there is no face.

    Args:
        vectors: of the face in each picture, `(d,)`; None if the picture has none.
        person: `(d,)`.
    """
    found = (np.nan if v is None else _compare(v, person, measure) for v in vectors)
    return np.fromiter(found, np.float64, len(vectors))


def _compare(a: Vector, b: Vector, measure: Measure) -> float:
    return cosine(a, b) if measure is Measure.COSINE else 1.0 - float(np.linalg.norm(a - b))


def average(vectors: Vectors, measure: Measure = Measure.COSINE) -> Vector:
    """A person's face by several photos, `(n, d)` -> `(d,)`: each photo counts alike."""
    return (unit(vectors) if measure is Measure.COSINE else vectors).mean(axis=0)


def count(scores: Scores, clipped: bool) -> Scores:
    """Scores as they enter a mean: a picture without a face counts 0.

    Args:
        clipped: whether negative cosines count 0 as well, as in FastComposer's evaluation (Xiao et
            al., 2023), whose name for the mean is M_FaceNet.
    """
    counted = np.nan_to_num(scores, nan=0.0)
    return np.maximum(counted, 0.0) if clipped else counted


def missing_rate(scores: Scores) -> float:
    """The share of pictures without a face, 0..1."""
    return float(np.isnan(scores).mean())


def copy_paste(generated: Vector, reference: Vector, target: Vector) -> float:
    """MultiID-Bench's copy-paste score: above 0 the picture copies the photo that was given.

    `(angle(generated, target) - angle(generated, reference)) / angle(target, reference)`, in -1..1:
    1 is the reference's face itself, -1 the target's.

    Args:
        reference: the face in the photo that the method was given.
        target: the person's face in other photos.
    """
    between = _angle(target, reference)
    return (_angle(generated, target) - _angle(generated, reference)) / between


def _angle(a: Vector, b: Vector) -> float:
    """In radians. By the arc tangent, which is as exact at small angles as at large ones."""
    a, b = (x.astype(np.float64) / np.linalg.norm(x.astype(np.float64)) for x in (a, b))
    return float(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def clip_scores(pictures: Vectors, others: Vectors, scale: float = 1.0) -> Scores:
    """CLIP-T and CLIP-I, `(n,)`: cosines of each picture and its own prompt or photo, scaled.

    Args:
        pictures, others: `(n, d)` features of one CLIP.
        scale: the factor; `TORCHMETRICS` for torchmetrics' numbers.
    """
    return scale * (unit(pictures) * unit(others)).sum(axis=1).astype(np.float64)


def diversity(pictures: Vectors) -> float:
    """How much pictures of one prompt vary: the mean of 1 - cosine over pairs; NaN for one.

    Args:
        pictures: `(seeds, d)` features of whole pictures.
    """
    return 1.0 - float(np.mean(among(pictures))) if len(pictures) > 1 else float("nan")


def among(vectors: Vectors, measure: Measure = Measure.COSINE) -> Scores:
    """The similarities of all pairs of `(n, d)`, each pair once: `(n * (n - 1) / 2,)`.

    Over the vectors of a person's own photos this is the baseline of face similarity.
    """
    rows, columns = np.triu_indices(len(vectors), k=1)
    if measure is Measure.DISTANCE:
        return 1.0 - np.linalg.norm(vectors[rows] - vectors[columns], axis=1).astype(np.float64)
    directions = unit(vectors)
    return (directions @ directions.T)[rows, columns].astype(np.float64)


def same_and_different(
    vectors: Vectors, people: ArrayLike, measure: Measure = Measure.COSINE
) -> tuple[Scores, Scores]:
    """The similarities of all pairs: those of one person, and those of two people.

    Args:
        vectors: `(n, d)`.
        people: whom each shows.
    """
    rows, columns = np.triu_indices(len(vectors), k=1)
    _, numbers = np.unique(np.asarray(people), return_inverse=True)
    same = numbers[rows] == numbers[columns]
    found = among(vectors, measure)
    return found[same], found[~same]

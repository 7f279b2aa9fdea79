"""Which photos of a person to keep: no strangers, no doubles, no person with a single photo."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...metrics.scores import direction, unit
from ...photos.look import Rejected

Record = dict[str, Any]
_SAME_PICTURE = 4
"""Bits of 64 by which the difference hashes of a double may differ ..."""
_SAME_FACE = 0.97
"""... if the face vectors are as alike as this."""


@dataclass(frozen=True)
class Choice:
    """How a person's photos are chosen.

    Attributes:
        likeness: the least cosine of a photo's face vector with the mean of the person's; less is
            a stranger.
        pair_with_flip: keep people with one photo; training pairs it with its own mirror image.
    """

    likeness: float = 0.35
    pair_with_flip: bool = False


def choose(
    records: Sequence[Record], vectors: NDArray[np.float32], choice: Choice, seen: dict[str, str]
) -> list[Record]:
    """Judge the photos of one person, which are usable by themselves.

    Args:
        records: the photos' records from `photos.look`.
        vectors: `(len(records), face_width)`.
        seen: file digest -> name, for all people's photos that were kept so far. The photos that
            are kept here are added.

    Returns:
        The records. Those that are not used have a `kind` and a `reason`.
    """
    faces = unit(vectors)
    likeness = faces @ _mean_person(faces, choice.likeness)
    kept: list[int] = []
    done = [dict(record) for record in records]
    for n, record in enumerate(done):
        try:
            _check_person(float(likeness[n]), choice)
            _check_file(record, seen)
            _check_pictures(n, done, faces, kept)
        except Rejected as rejected:
            record |= {"kind": rejected.kind, "reason": str(rejected)}
        else:
            seen[record["digest"]] = record["name"]
            kept.append(n)
    if len(kept) == 1 and not choice.pair_with_flip:
        done[kept[0]] |= {
            "kind": "alone",
            "reason": "it is the person's only usable photo, and a pair takes two",
        }
    return done


def _mean_person(faces: NDArray[np.float32], likeness: float) -> NDArray[np.float32]:
    """Return the mean direction of the largest group of similar photos, without strangers.

    The group first consists of the photos that are like one photo: the one with the most such
    photos. Then it is chosen twice more by its mean, which shows the person better than one photo.
    """
    alike = faces @ faces.T >= likeness
    mean = faces[int(alike.sum(axis=1).argmax())]
    for _ in range(3):
        own = faces[faces @ mean >= likeness]
        mean = own.mean(axis=0) if len(own) else mean
        mean = direction(mean)
    return mean


def _check_person(likeness: float, choice: Choice) -> None:
    if likeness < choice.likeness:
        raise Rejected(
            "stranger",
            f"its face has a likeness of {likeness:.2f} to the person's other photos, less than "
            f"{choice.likeness:.2f}: somebody else?",
        )


def _check_file(record: Record, seen: dict[str, str]) -> None:
    if record["digest"] in seen:
        raise Rejected("double", f"it is the same file as {seen[record['digest']]}")


def _check_pictures(
    n: int, records: Sequence[Record], faces: NDArray[np.float32], kept: Sequence[int]
) -> None:
    own = int(records[n]["picture"], 16)
    for other in kept:
        differing = (own ^ int(records[other]["picture"], 16)).bit_count()
        if differing <= _SAME_PICTURE and faces[n] @ faces[other] >= _SAME_FACE:
            raise Rejected("double", f"it is nearly the same picture as {records[other]['name']}")

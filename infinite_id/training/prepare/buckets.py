"""Aspect buckets: the sizes to which photos are cut, so that they can share a batch."""

from dataclasses import dataclass
from functools import cache
from math import ceil, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...faces.face import Photo

_WIDEST = 2.0
"""The largest ratio of a bucket's sides."""


@dataclass(frozen=True)
class Cut:
    """A photo in its bucket.

    Attributes:
        pixels: `(height, width, 3)` uint8 BGR, of the bucket's size.
        top, left: what the cut left out, in pixels of the scaled photo.
    """

    pixels: Photo
    top: int
    left: int


@cache
def list_buckets(size: int, step: int) -> list[tuple[int, int]]:
    """Heights and their largest widths, multiples of `step`, with at most `size * size` pixels."""
    largest = size * size
    sides = range(step, int(size * _WIDEST) + 1, step)
    widths = {height: largest // height // step * step for height in sides}
    found = [(height, width) for height, width in widths.items() if width]
    return [bucket for bucket in found if max(bucket) <= _WIDEST * min(bucket)]


def choose_bucket(height: int, width: int, size: int, step: int) -> tuple[int, int]:
    """The bucket whose shape is nearest to the photo's; of equals, the first."""
    shape = log(height / width)
    return min(list_buckets(size, step), key=lambda b: (abs(log(b[0] / b[1]) - shape), b))


def cut(photo: Photo, box: NDArray[np.float32], bucket: tuple[int, int]) -> Cut:
    """Scale a photo to cover its bucket, and cut off what is left over, around the face's middle.

    Args:
        box: left, top, right, bottom of the face, in pixels of the photo.
    """
    import cv2

    height, width = photo.shape[:2]
    scale = max(bucket[0] / height, bucket[1] / width)
    size = max(bucket[1], ceil(width * scale - 1e-6)), max(bucket[0], ceil(height * scale - 1e-6))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled: Any = cv2.resize(photo, size, interpolation=kind)
    left = _place((box[0] + box[2]) / 2 * scale, bucket[1], size[0])
    top = _place((box[1] + box[3]) / 2 * scale, bucket[0], size[1])
    return Cut(scaled[top : top + bucket[0], left : left + bucket[1]], top, left)


def _place(middle: float, length: int, whole: int) -> int:
    return int(min(max(round(middle - length / 2), 0), whole - length))

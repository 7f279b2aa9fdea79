"""The aligned headshot: an upright square with hair and chin, as FFHQ's pictures are cut.

The authors of StableIdentity ask for such a crop; here it is made of any photo with landmarks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .alignment import warp
from .face import Photo, Points
from .photo import to_image

Matrix = NDArray[np.float64]
"""`(3, 3)`, photo pixels -> headshot pixels."""

_BY_EYES, _BY_MOUTH, _LOWER = 2.0, 1.8, 0.1
"""FFHQ: half the side is twice the distance between the eyes, or 1.8 times the distance from eyes
to mouth if that is more. The middle lies below the eyes, by a tenth of the latter distance."""
RECOGNISED = np.array([64, 70, 440, 446]) / 512
"""Left, top, right, bottom of what the official face encoder sees, in sides of the headshot."""


def place_headshot(landmarks: Points, side: int) -> Matrix:
    """Return the matrix that maps a photo to the headshot of a face in it.

    Args:
        landmarks: `(5, 2)` eyes, nose, mouth corners in photo pixels.
        side: of the headshot, in pixels.
    """
    points = landmarks.astype(np.float64)
    left, right = points[:2]
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    down = mouth - eyes
    across = right - left + np.array([down[1], -down[0]])  # so that nodding and tilting even out
    across /= np.hypot(*across)
    half = max(_BY_EYES * np.hypot(*(right - left)), _BY_MOUTH * np.hypot(*down))
    middle = eyes + _LOWER * down
    below = np.array([-across[1], across[0]])
    zoom = side / (2 * half)
    turn = zoom * np.stack([across, below])
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = side / 2 - turn @ middle
    return matrix


def place_middle(size: tuple[int, int], side: int) -> Matrix:
    """Return the matrix of the middle square, for a photo `(height, width)` without landmarks."""
    height, width = size
    zoom = side / min(size)
    return np.array(
        [
            [zoom, 0, (side - zoom * width) / 2],
            [0, zoom, (side - zoom * height) / 2],
            [0, 0, 1],
        ]
    )


def cut_headshot(photo: Photo, matrix: Matrix, side: int) -> Tensor:
    """Cut out a headshot: `(3, side, side)` float32 RGB in 0..1, mirrored beyond the photo."""
    cut: Any = warp(photo, matrix, side, mirrored=True)
    return to_image(cut)[0].permute(2, 0, 1).contiguous()


def cut_mask(mask: NDArray[np.float32], matrix: Matrix, side: int) -> Tensor:
    """Cut the headshot out of a mask `(h, w)` of the photo: `(1, side, side)`, 0 beyond it."""
    return torch.from_numpy(warp(mask, matrix, side)).clamp(0, 1)[None]


def cut_recognised(headshot: Tensor) -> Tensor:
    """Cut out of a headshot what the face encoder sees: `(3, s, s)` -> `(1, h, w, 3)`."""
    side = headshot.shape[-1]
    left, top, right, bottom = (round(share * side) for share in RECOGNISED)
    return headshot[:, top:bottom, left:right].permute(1, 2, 0)[None]

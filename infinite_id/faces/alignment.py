"""Faces cut out of photos upright, and masks over them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..adapters.mappers import Crop
from .face import Face, Photo, Points

_ARCFACE = 112
"""The side of ArcFace's aligned crop, in which the oval below is given."""
_OVAL_CENTRE, _OVAL_RADII = np.array([56.0, 60.0]), np.array([42.0, 58.0])
_SHARE = {Crop.LOOSE: 0.65, Crop.ARCFACE: 1.0}
"""The share of a crop's side that the ArcFace crop takes."""


def crop_for_recogniser(analysis: Any, photo: Photo, face: Face) -> Photo:
    """Return the crop that the recogniser saw, usually `(112, 112, 3)`."""
    from insightface.utils.face_align import norm_crop

    side = analysis.models["recognition"].input_size[0]
    cut: Any = norm_crop(photo, landmark=face.landmarks, image_size=side)
    return cut


def align(photo: Photo, face: Face, size: int, crop: Crop = Crop.LOOSE) -> Photo:
    """Cut out a face, upright and centred: `(size, size, 3)`."""
    return align_landmarks(photo, face.landmarks, size, crop)


def align_landmarks(photo: Photo, landmarks: Points, size: int, crop: Crop = Crop.LOOSE) -> Photo:
    """Cut out a face by its landmarks, the eyes up: `(size, size, 3)`."""
    share = _SHARE[crop]
    zoom, shift = share * size / _ARCFACE, (1 - share) * size / 2
    matrix = np.array([[zoom, 0, shift], [0, zoom, shift], [0, 0, 1]]) @ _arcface_matrix(landmarks)
    return warp(photo, matrix, size)


def warp(picture: Any, matrix: NDArray[np.float64], size: int, mirrored: bool = False) -> Any:
    """Map a picture or mask by a similarity transform `(3, 3)` into a square, `size` on a side.

    Args:
        mirrored: whether the picture is mirrored beyond its borders; else it is black there.
    """
    import cv2

    scale = float(np.hypot(*matrix[0, :2]))
    source: Any = picture
    if scale < 0.5:  # shrink first: sampling single pixels of a large photo would alias
        shrink = 2 * scale
        source = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.diag([1 / shrink, 1 / shrink, 1])
    border = cv2.BORDER_REFLECT_101 if mirrored else cv2.BORDER_CONSTANT
    return cv2.warpAffine(
        source, matrix[:2], (size, size), flags=cv2.INTER_LINEAR, borderMode=border
    )


def cut_middle(photo: Photo, size: int) -> Photo:
    """The middle square of a photo, scaled as CLIP's preprocessing does: `(size, size, 3)`."""
    square = ImageOps.fit(Image.fromarray(photo), (size, size), Image.Resampling.BICUBIC)
    return np.asarray(square).copy()


def draw_mask(shape: tuple[int, int], face: Face) -> NDArray[np.float32]:
    """An oval over the face, `(height, width)` in 0..1, tilted as the face is."""
    import cv2

    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    oval = _OVAL_CENTRE + _OVAL_RADII * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    outline = np.c_[oval, np.ones(len(oval))] @ np.linalg.inv(_arcface_matrix(face.landmarks)).T
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [outline[:, :2].round().astype(np.int32)], 255, lineType=cv2.LINE_AA)
    return mask.astype(np.float32) / np.float32(255)


def _arcface_matrix(landmarks: Points) -> NDArray[np.float64]:
    """Photo pixels -> ArcFace crop pixels: InsightFace's similarity transform, `(3, 3)`."""
    from insightface.utils.face_align import estimate_norm

    return np.vstack([estimate_norm(landmarks, _ARCFACE), [0, 0, 1]])

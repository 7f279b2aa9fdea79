"""Photos -> portraits (headshot, masks and face vectors), by the nets that the user connects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy.clip_vision import ClipVisionModel
from numpy.typing import NDArray
from torch import Tensor

from ..adapters.mappers import ClipLayer
from ..faces.alignment import crop_for_recogniser, draw_mask
from ..faces.crops import scale_face
from ..faces.detection import describe_finder, detect
from ..faces.face import Face, FaceError, Photo
from ..faces.headshot import (
    Matrix,
    cut_headshot,
    cut_mask,
    cut_recognised,
    place_headshot,
    place_middle,
)
from ..files import file_digest
from ..host.clip import encode_image
from .data import Portrait
from .masks import MaskError, Masks, mask_nothing

Mask = NDArray[np.float32]
"""`(height, width)` in 0..1, of a photo."""

_HAIR = 1.6
"""The oval around face and hair, in sizes of the face's."""


@dataclass(frozen=True, eq=False)
class Nets:
    """The nets that see faces; at least one of the two.

    Attributes:
        analysis: an InsightFace FaceAnalysis. It finds faces, and makes the face vectors if
            there is no image encoder.
        clip_vision: an image encoder that makes the face vectors, as in the paper.
    """

    analysis: Any
    clip_vision: ClipVisionModel | None

    def __post_init__(self) -> None:
        if self.analysis is None and self.clip_vision is None:
            raise FaceError(
                "A face encoder is needed: connect Load Face Analysis to 'face_analysis', or Load "
                "CLIP Vision to 'clip_vision'."
            )

    @property
    def encoder(self) -> str:
        """Which net makes the face vectors, with a digest of its weights."""
        if self.clip_vision is not None:
            weight = next(self.clip_vision.model.parameters()).detach().cpu().contiguous()
            digest = sha256(weight.view(torch.uint8).numpy().tobytes()).hexdigest()
            return f"CLIP vision {digest[:16]}"
        file = Path(self.analysis.models["recognition"].model_file)
        return f"{file.name} {file_digest(file)[:16]}"

    @property
    def finder(self) -> str:
        """Which net finds faces and at which size, with a digest; empty without such a net."""
        return "" if self.analysis is None else describe_finder(self.analysis)


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """The user's masks for one photo, in its pixels; None for a mask that is not given."""

    face: Mask | None = None
    hair: Mask | None = None
    person: Mask | None = None


def read_masks(
    photos: dict[str, Photo],
    face: Tensor | None = None,
    hair: Tensor | None = None,
    person: Tensor | None = None,
) -> list[GivenMasks]:
    """Read MASK batches `(n, h, w)`, which hold one mask for each photo.

    Raises:
        MaskError: if there are not as many masks as photos, if their sizes differ from the
            photos', or if values are not numbers.
    """
    columns = [
        _read_batch(kind, batch, photos)
        for kind, batch in (("face_mask", face), ("hair_mask", hair), ("person_mask", person))
    ]
    return [GivenMasks(*own) for own in zip(*columns, strict=True)]


def _read_batch(kind: str, batch: Tensor | None, photos: dict[str, Photo]) -> list[Mask | None]:
    if batch is None:
        return [None] * len(photos)
    masks = batch.reshape(-1, *batch.shape[-2:])
    if len(masks) != len(photos):
        raise MaskError(
            f"{kind} has {len(masks)} masks for {len(photos)} photos: give one for each photo."
        )
    sizes = {(photo.shape[0], photo.shape[1]) for photo in photos.values()}
    if sizes != {(masks.shape[1], masks.shape[2])}:
        height, width = masks.shape[1:]
        raise MaskError(
            f"{kind} is {width}x{height}, and the photos are not. Give a mask of the photo's own "
            "size; Load Image gives an empty one of 64x64 for a photo without transparency."
        )
    if not torch.isfinite(masks).all():
        raise MaskError(
            f"{kind} holds values that are not numbers (NaN). Look at the node that it comes from."
        )
    return list(masks.float().clamp(0, 1).cpu().numpy())


@dataclass(frozen=True)
class Looked:
    """Portraits, with a line for the user about each."""

    portraits: list[Portrait]
    lines: list[str]


def look(
    nets: Nets,
    photos: dict[str, Photo],
    given: Sequence[GivenMasks],
    side: int,
    masked: bool = True,
) -> Looked:
    """Make portraits of photos.

    Args:
        given: masks for each photo.
        side: of headshots, in pixels.
        masked: whether only face and hair are learnt.

    Raises:
        FaceError: if no face is found in a photo.
    """
    portraits, lines = [], []
    for (name, photo), own in zip(photos.items(), given, strict=True):
        face, found = _find(nets, name, photo)
        matrix = place_middle(_size(photo), side)
        if face is not None:
            matrix = place_headshot(face.landmarks, side)
        headshot = cut_headshot(photo, matrix, side)
        masks = _make_masks(name, photo, face, own, matrix, side) if masked else mask_nothing(side)
        vectors = _encode(nets, photo, face, headshot)
        portraits.append(Portrait(name, headshot, masks, vectors))
        lines.append(f"{name}: {found}; {masks.describe()}")
    return Looked(portraits, lines)


def encode_face(nets: Nets, name: str, photo: Photo, side: int) -> Tensor | None:
    """Return the face vector `(w,)` of a drawn picture; None if there is no face."""
    try:
        face, _ = _find(nets, name, photo)
    except FaceError:
        return None
    matrix = place_middle(_size(photo), side)
    if face is not None:
        matrix = place_headshot(face.landmarks, side)
    return _encode(nets, photo, face, cut_headshot(photo, matrix, side))[0]


def _size(photo: Photo) -> tuple[int, int]:
    return photo.shape[0], photo.shape[1]


def _find(nets: Nets, name: str, photo: Photo) -> tuple[Face | None, str]:
    """Return the largest face, and what was found in words; None if no net finds faces."""
    if nets.analysis is None:
        return None, "its middle square (no face analysis)"
    faces = detect(nets.analysis, photo)
    if not faces:
        raise FaceError(
            f"No face found in {name}. Use a photo in which the face is sharp and uncovered, or "
            "leave 'face_analysis' unconnected and give an upright headshot with its 'face_mask'."
        )
    if len(faces) == 1:
        return faces[0], "one face"
    return faces[0], f"the largest of {len(faces)} faces; crop the photo to choose another"


def _encode(nets: Nets, photo: Photo, face: Face | None, headshot: Tensor) -> Tensor:
    """Return the face vectors of a photo and of its mirror image, `(2, w)`."""
    if nets.clip_vision is not None:
        seen = cut_recognised(headshot)
        both = torch.cat([seen, seen.flip(2)])
        return encode_image(nets.clip_vision, both, ClipLayer.LAST)[:, 0].float()
    assert face is not None
    mirrored = np.ascontiguousarray(crop_for_recogniser(nets.analysis, photo, face)[:, ::-1])
    vector = nets.analysis.models["recognition"].get_feat([mirrored])
    other = np.asarray(vector, np.float32).reshape(-1)
    return torch.from_numpy(np.stack([face.embedding, other]))


def _make_masks(
    name: str, photo: Photo, face: Face | None, given: GivenMasks, matrix: Matrix, side: int
) -> Masks:
    own, whence = given.face, "yours"
    if own is None and face is not None:
        own, whence = draw_mask(_size(photo), face), "an oval by the landmarks"
    if own is None:
        raise FaceError(
            f"Nothing says where the face is in {name}: connect a mask to 'face_mask', or Load "
            "Face Analysis to 'face_analysis'."
        )
    hair, hair_whence = given.hair, "yours"
    if hair is None and face is not None:
        hair, hair_whence = draw_mask(_size(photo), scale_face(face, _HAIR)), "around the face"
        if given.person is not None:
            hair, hair_whence = hair * given.person, "around the face, within your person mask"
    if hair is None:
        hair, hair_whence = np.zeros_like(own), "none"
    cut = cut_mask(own, matrix, side)
    apart = (cut_mask(hair, matrix, side) - cut).clamp(0, 1)
    return Masks(cut, apart, whence, hair_whence)

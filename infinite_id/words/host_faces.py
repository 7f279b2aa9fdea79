"""Photos -> headshots with masks, and face vectors, by the nets that the user connects."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy.clip_vision import ClipVisionModel
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
from ..faces.parser import FaceParser
from ..files import file_digest
from ..host.clip import encode_image
from .masks import Masks, mask_nothing
from .material import GivenMasks

_BY_PARSER = "by the face parser"
_HAIR = 1.6
"""The oval around face and hair, in sizes of the face's."""


@dataclass(frozen=True, eq=False)
class Nets:
    """The nets that see faces, as far as they are connected.

    Attributes:
        analysis: an InsightFace FaceAnalysis. It finds faces, and makes the face vectors if
            there is no image encoder.
        clip_vision: an image encoder that makes the face vectors, as in StableIdentity's paper.
        parser: a net that sees which pixels are face, and which are hair.
    """

    analysis: Any = None
    clip_vision: ClipVisionModel | None = None
    parser: FaceParser | None = None

    @property
    def encoder(self) -> str:
        """Which net makes the face vectors, with a digest of its weights.

        Raises:
            FaceError: if there is none.
        """
        if self.analysis is None and self.clip_vision is None:
            raise FaceError(
                "A face encoder is needed: connect Load Face Analysis to 'face_analysis', or Load "
                "CLIP Vision to 'clip_vision'."
            )
        if self.clip_vision is not None:
            weight = next(self.clip_vision.model.parameters()).detach().cpu().contiguous()
            digest = sha256(weight.view(torch.uint8).numpy().tobytes()).hexdigest()
            return f"CLIP vision {digest[:16]}"
        file = Path(self.analysis.models["recognition"].model_file)
        return f"{file.name} {file_digest(file)[:16]}"

    def describe(self) -> dict[str, str]:
        """Return digests of what decides pictures and masks; empty where there is no such net."""
        finder = "" if self.analysis is None else describe_finder(self.analysis)
        parser = "" if self.parser is None else self.parser.digest
        return {"face_finder": finder, "face_parser": parser}


@dataclass(frozen=True, eq=False)
class Square:
    """What is learnt of a photo.

    Attributes:
        picture: `(3, side, side)` RGB in 0..1: the headshot, or the middle of the photo.
        face: where the photo has it; None if no net finds faces.
        line: what was seen, for the user.
    """

    picture: Tensor
    masks: Masks
    face: Face | None
    line: str


def cut_square(
    nets: Nets, name: str, photo: Photo, given: GivenMasks, side: int, masked: bool
) -> Square:
    """Cut out what is learnt of a photo, and its masks.

    Args:
        masked: whether only face and hair are learnt.

    Raises:
        FaceError: if a face is looked for and not found, or nothing says where it is.
    """
    face, found = _find(nets, name, photo)
    matrix = _place(photo, face, side)
    picture = cut_headshot(photo, matrix, side)
    masks = mask_nothing(side)
    if masked:
        parsed = None if nets.parser is None else nets.parser.parse(picture)
        masks = _make_masks(name, photo, face, given, matrix, side, parsed)
    return Square(picture, masks, face, f"{name}: {found}; {masks.describe()}")


def encode_face(nets: Nets, name: str, photo: Photo, side: int) -> Tensor | None:
    """Return the face vector `(w,)` of a drawn picture; None if there is no face."""
    try:
        face, _ = _find(nets, name, photo)
    except FaceError:
        return None
    picture = cut_headshot(photo, _place(photo, face, side), side)
    return encode_vectors(nets, photo, face, picture)[0]


def _place(photo: Photo, face: Face | None, side: int) -> Matrix:
    if face is None:
        return place_middle(_size(photo), side)
    return place_headshot(face.landmarks, side)


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
            "leave 'face_analysis' unconnected: the photo's middle square is learnt then."
        )
    if len(faces) == 1:
        return faces[0], "one face"
    return faces[0], f"the largest of {len(faces)} faces; crop the photo to choose another"


def encode_vectors(nets: Nets, photo: Photo, face: Face | None, headshot: Tensor) -> Tensor:
    """Return the face vectors of a photo and of its mirror image, `(2, w)`."""
    if nets.clip_vision is not None:
        seen = cut_recognised(headshot)
        both = torch.cat([seen, seen.flip(2)])
        return encode_image(nets.clip_vision, both, ClipLayer.LAST)[:, 0].float()
    assert face is not None  # else there is no encoder
    mirrored = np.ascontiguousarray(crop_for_recogniser(nets.analysis, photo, face)[:, ::-1])
    vector = nets.analysis.models["recognition"].get_feat([mirrored])
    other = np.asarray(vector, np.float32).reshape(-1)
    return torch.from_numpy(np.stack([face.embedding, other]))


def _make_masks(
    name: str,
    photo: Photo,
    face: Face | None,
    given: GivenMasks,
    matrix: Matrix,
    side: int,
    parsed: tuple[Tensor, Tensor] | None,
) -> Masks:
    """Take the user's masks; else the parser's, of face and hair; else draw them by landmarks."""
    if given.face is not None:
        own, whence = cut_mask(given.face, matrix, side), "yours"
    elif parsed is not None:
        own, whence = parsed[0], _BY_PARSER
        if not own.any():
            raise FaceError(
                f"The face parser sees no face in {name}. Connect Load Face Analysis to "
                "'face_analysis', so that the face is cut out first, or a mask to 'face_mask'."
            )
    elif face is not None:
        drawn = draw_mask(_size(photo), face)
        own, whence = cut_mask(drawn, matrix, side), "an oval by the landmarks"
    else:
        raise FaceError(
            f"Nothing says where the face is in {name}: connect a mask to 'face_mask', or Load "
            "Face Analysis to 'face_analysis'."
        )
    hair, hair_whence = torch.zeros_like(own), "none"
    if given.hair is not None:
        hair, hair_whence = cut_mask(given.hair, matrix, side), "yours"
    elif parsed is not None:
        hair, hair_whence = parsed[1], _BY_PARSER
    elif face is not None:
        drawn = draw_mask(_size(photo), scale_face(face, _HAIR))
        hair, hair_whence = cut_mask(drawn, matrix, side), "around the face"
    if given.person is not None and given.hair is None:
        hair = hair * cut_mask(given.person, matrix, side)
        hair_whence += ", within your person mask"
    return Masks(own, (hair - own).clamp(0, 1), whence, hair_whence)

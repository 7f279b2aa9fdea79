"""Shared parts of the nodes that look for faces: their inputs, and the loop over photos."""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_api.latest import io

from ..infinite_id.faces.detection import detect
from ..infinite_id.faces.face import MIN_CONFIDENCE, Face, FaceError, Photo, Vector, average_person
from ..infinite_id.faces.photo import read_photos
from . import sockets


def face_analysis_input(advice: str = "", optional: bool = False) -> io.MultiType.Input:
    """The input for a face analysis of this pack or of another one."""
    tooltip = "From Load Face Analysis, or another pack's InsightFace loader."
    return io.MultiType.Input(
        "face_analysis",
        sockets.FACE_ANALYSIS_TYPES,
        optional=optional,
        tooltip=f"{tooltip} {advice}".rstrip(),
    )


def person_inputs() -> list[io.Input]:
    """Inputs for the person that faces are compared with: a face analysis, and photos."""
    return [
        face_analysis_input(
            "Best another pack than the identity was encoded with: it judges without favour."
        ),
        io.Image.Input(
            "reference",
            tooltip="A photo of the person, or a batch, of which the mean face is taken. In each "
            "the largest face counts.",
        ),
    ]


def look_through(
    face_analysis: Any, photos: dict[str, Photo], min_confidence: float = MIN_CONFIDENCE
) -> Iterator[tuple[str, Photo, list[Face]]]:
    """Yield each photo's name, the photo, and its faces, largest first; show progress on the node.

    Raises:
        comfy.model_management.InterruptProcessingException: before the next photo.
    """
    progress = ProgressBar(len(photos))
    for name, photo in photos.items():
        throw_exception_if_processing_interrupted()
        faces = detect(face_analysis, photo, min_confidence)
        _log_turned(name, faces)
        yield name, photo, faces
        progress.update(1)


def _log_turned(name: str, faces: list[Face]) -> None:
    turned = [face.attitude for face in faces if face.attitude]
    if turned:
        places = " and ".join(sorted(set(turned)))
        logging.info(
            "Infinite-ID: %s: %d of %d faces were found %s", name, len(turned), len(faces), places
        )


def read_faces(face_analysis: Any, reference: torch.Tensor) -> list[Face]:
    """Return the largest face of each photo of an IMAGE batch.

    Raises:
        FaceError: if a photo has no face; the message names it.
    """
    largest = []
    for name, _, faces in look_through(face_analysis, read_photos([reference], "reference")):
        if not faces:
            raise FaceError(f"No face found in {name}. Use a photo in which the face is sharp.")
        largest.append(faces[0])
    return largest


def read_person(face_analysis: Any, reference: torch.Tensor) -> Vector:
    """Return the mean face vector of the largest faces. Raises FaceError as `read_faces` does."""
    return average_person(read_faces(face_analysis, reference))

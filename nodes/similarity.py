"""Measures how similar the faces in pictures are to a person."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..infinite_id.faces import annotate
from ..infinite_id.faces.face import (
    Face,
    FaceError,
    Order,
    Photo,
    Vector,
    average_person,
    sort_faces,
)
from ..infinite_id.faces.photo import read_photos, to_image
from ..infinite_id.metrics.scores import cosine
from . import sockets
from .detection import look_through, person_inputs, read_faces
from .node import Node

THRESHOLD = 0.4
"""Photos of one person score at least 0.5 and strangers at most 0.35; this lies between."""
PACK_THRESHOLDS = {
    "rec_fr.onnx": 0.40,
    "w600k_r50.onnx": 0.32,
    "glintr100.onnx": 0.32,
}
"""Thresholds by the recogniser's file. At yunet-fr's, 1 in 1000 strangers passes (docs/metrics.md).
For InsightFace's buffalo_l and antelopev2 it is the distance 0.68 that ArcFace is used with."""
OWN, OF_PACK = "threshold", "face model"
SMALLEST_PICTURE = 512
"""In pixels. In a smaller picture the numbers would hide the face."""


class FaceSimilarity(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDFaceSimilarity",
            display_name="Face Similarity",
            category=sockets.CATEGORY,
            description="Measures how much the faces in pictures are those of a person: the "
            "cosine between face vectors, the measure that papers call face similarity. About 0 "
            "for strangers, above 0.5 for one person, 1 for the same photo.",
            search_aliases=["compare faces", "face distance", "likeness score"],
            inputs=[
                *person_inputs(),
                io.Image.Input(
                    "images",
                    tooltip="The pictures to measure. In each the face that is most like the "
                    "person counts.",
                ),
                io.Float.Input(
                    "threshold",
                    default=THRESHOLD,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="From which similarity on a face is called the same person. The "
                    "numbers do not depend on it.",
                ),
                io.Combo.Input(
                    "verdict_at",
                    options=[OWN, OF_PACK],
                    default=OWN,
                    optional=True,
                    tooltip="'threshold': at the number above. 'face model': where that model "
                    "tells people apart; known of yunet-fr, buffalo_l and antelopev2.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "text",
                    display_name="text",
                    tooltip="One line for each picture: the similarity of its most similar face, "
                    "or 'no face'.",
                ),
                io.Float.Output(
                    "mean",
                    display_name="mean similarity",
                    tooltip="The mean over the pictures that have a face; 0 if none has.",
                ),
                io.Image.Output(
                    "annotated",
                    display_name="annotated images",
                    tooltip="The pictures with the similarity at each face, green from the "
                    "threshold on; small pictures are enlarged.",
                ),
                io.Float.Output(
                    "percent",
                    display_name="percent",
                    tooltip="The mean similarity in percent of how alike the reference photos are "
                    "among themselves: 100 is as alike as the person's own photos. 0 for a single "
                    "reference photo, and for photos that are not alike.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        face_analysis: Any,
        reference: torch.Tensor,
        images: torch.Tensor,
        threshold: float = THRESHOLD,
        verdict_at: str = OWN,
    ) -> io.NodeOutput:
        own = read_faces(face_analysis, reference)
        person, baseline = average_person(own), find_baseline(own)
        if verdict_at == OF_PACK:
            threshold = pack_threshold(face_analysis)
        photos = read_photos([images], "image")
        lines, best, pictures = [], [], []
        for name, photo, found in look_through(face_analysis, photos):
            faces = sort_faces(found, Order.MOST_SIMILAR, person)
            best += [cosine(face.embedding, person) for face in faces[:1]]
            lines.append(f"{name}: {_judge(best[-1], threshold, baseline) if faces else 'no face'}")
            pictures.append(to_image(_draw(photo, faces, person, threshold)))
        annotated = torch.cat(pictures)
        mean = float(np.mean(best)) if best else 0.0
        return io.NodeOutput(
            "\n".join(lines),
            mean,
            annotated,
            100 * mean / baseline if baseline else 0.0,
            ui=ui.PreviewImage(annotated, cls=cls),
        )


def find_baseline(own: list[Face]) -> float | None:
    """Return the mean similarity of each of the person's photos to the mean of the others.

    None for a single photo, and if it is not above 0: then no percentage of it means anything.
    """
    if len(own) < 2:
        return None
    rest = [average_person([*own[:n], *own[n + 1 :]]) for n in range(len(own))]
    found = float(np.mean([cosine(o.embedding, r) for o, r in zip(own, rest, strict=True)]))
    return found if found > 0 else None


def pack_threshold(face_analysis: Any) -> float:
    """Return the similarity above which a pack's recogniser takes two faces for one person.

    Raises:
        FaceError: if it is not known.
    """
    file = Path(face_analysis.models["recognition"].model_file).name
    if file not in PACK_THRESHOLDS:
        raise FaceError(
            f"The threshold of {file} is not known; known are {', '.join(PACK_THRESHOLDS)}. Set "
            f"verdict_at to '{OWN}', and threshold to what `python -m infinite_id.metrics "
            "calibrate` finds on photos of yours."
        )
    return PACK_THRESHOLDS[file]


def _judge(score: float, threshold: float, baseline: float | None) -> str:
    verdict = "the same person" if score >= threshold else "another person"
    percent = f", {score / baseline:.0%} of the person's own photos" if baseline else ""
    return f"{score:.3f}{percent}, {verdict}"


def _draw(photo: Photo, faces: list[Face], person: Vector, threshold: float) -> Photo:
    scores = [cosine(face.embedding, person) for face in faces]
    marks = [
        annotate.Mark(
            face, f"{score:.2f}", annotate.CHOSEN if score >= threshold else annotate.WRONG
        )
        for face, score in zip(faces, scores, strict=True)
    ]
    side = max(SMALLEST_PICTURE, *photo.shape[:2])
    return annotate.draw_faces(photo, marks, side, "" if faces else "no face")

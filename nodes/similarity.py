"""How alike pictures are to a person."""

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..infinite_id import annotate
from ..infinite_id.face import Face, Order, Photo, Vector, sort_faces
from ..infinite_id.metrics.scores import cosine
from ..infinite_id.photo import read_photos, to_image
from . import sockets
from .detection import face_analysis_input, look_through, read_person

THRESHOLD = 0.4
"""Between the least that photos of one person score, .5, and the most that strangers do, .35."""
SMALLEST_PICTURE = 512
"""In pixels: in what is smaller the numbers would hide the face."""


class FaceSimilarity(io.ComfyNode):
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
                face_analysis_input(
                    "Best another pack than the identity was encoded with: it judges without "
                    "favour."
                ),
                io.Image.Input(
                    "reference",
                    tooltip="A photo of the person, or a batch, of which the mean face is taken. "
                    "In each the largest face counts.",
                ),
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
    ) -> io.NodeOutput:
        person = read_person(face_analysis, reference)
        photos = read_photos([images], "image")
        lines, best, pictures = [], [], []
        for name, photo, found in look_through(face_analysis, photos):
            faces = sort_faces(found, Order.MOST_SIMILAR, person)
            best += [cosine(face.embedding, person) for face in faces[:1]]
            lines.append(f"{name}: {_judge(best[-1], threshold) if faces else 'no face'}")
            pictures.append(to_image(_draw(photo, faces, person, threshold)))
        annotated = torch.cat(pictures)
        return io.NodeOutput(
            "\n".join(lines),
            float(np.mean(best)) if best else 0.0,
            annotated,
            ui=ui.PreviewImage(annotated, cls=cls),
        )


def _judge(score: float, threshold: float) -> str:
    return f"{score:.3f}, {'the same person' if score >= threshold else 'another person'}"


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

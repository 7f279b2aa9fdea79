"""Nodes that score pictures and pick the best ones of a batch."""

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..infinite_id.faces.face import Face, Photo, Vector
from ..infinite_id.faces.photo import read_photos, to_image
from ..infinite_id.metrics import host_clip
from ..infinite_id.metrics.scores import Scores, clip_scores, similarities
from . import sockets
from .detection import face_analysis_input, look_through, person_inputs, read_person
from .node import Node


class PickBest(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDPickBest",
            display_name="Pick Best Pictures",
            category=sockets.CATEGORY,
            description="Keeps the pictures of a batch that are most like a person, best first, "
            "and says how alike each was.",
            search_aliases=["filter faces", "best of batch", "sort by likeness"],
            inputs=[
                *person_inputs(),
                io.Image.Input(
                    "images",
                    tooltip="The pictures to choose from. In each the face that is most like the "
                    "person counts; one without a face comes last.",
                ),
                io.Int.Input(
                    "count",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="How many pictures to keep. All are kept if there are no more.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "best", display_name="best", tooltip="The kept pictures, the most alike first."
                ),
                io.String.Output(
                    "text",
                    display_name="text",
                    tooltip="One line for each picture of the batch, best first: its similarity, "
                    "and whether it is kept.",
                ),
                io.Float.Output(
                    "similarity",
                    display_name="similarity",
                    tooltip="Of the best picture; 0 if none has a face.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, face_analysis: Any, reference: torch.Tensor, images: torch.Tensor, count: int
    ) -> io.NodeOutput:
        scores, names = _compare(face_analysis, reference, images)
        ranked = sorted(range(len(names)), key=lambda n: _rank(float(scores[n])), reverse=True)
        lines = [
            f"{names[n]}: {_describe(scores[n])}, {'kept' if place < count else 'left out'}"
            for place, n in enumerate(ranked)
        ]
        best = images[ranked[:count]]
        shown = [to_image(photo) for photo in read_photos([best], "image").values()]
        return io.NodeOutput(
            best,
            "\n".join(lines),
            float(np.nan_to_num(scores[ranked[0]])),
            ui=ui.PreviewImage(torch.cat(shown), cls=cls),
        )


class ScorePictures(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDScorePictures",
            display_name="Score Pictures",
            category=sockets.CATEGORY,
            description="Scores pictures as papers do: how much they follow the prompt (CLIP-T), "
            "how much they are like the reference as a whole (CLIP-I), and how alike the faces "
            "are. Each score needs its own inputs; what is not connected is left out.",
            search_aliases=["clip score", "evaluate images", "metrics"],
            inputs=[
                io.Image.Input("images", tooltip="The pictures to score."),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="For CLIP-T: what the pictures should show. Brackets are no weights "
                    "here.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="For CLIP-T: the text encoder of the same CLIP as clip_vision.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="For CLIP-T and CLIP-I. Compare numbers of one CLIP only.",
                ),
                face_analysis_input("For the face similarity.", optional=True),
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip="For CLIP-I and the face similarity: a photo of the person, or a "
                    "batch, of which the mean is taken.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "text",
                    display_name="text",
                    tooltip="One line for each picture, and one of their means.",
                ),
                io.Float.Output(
                    "clip_t",
                    display_name="CLIP-T",
                    tooltip="The mean cosine of picture and prompt; 0 if it is left out.",
                ),
                io.Float.Output(
                    "clip_i",
                    display_name="CLIP-I",
                    tooltip="The mean cosine of picture and reference; 0 if it is left out.",
                ),
                io.Float.Output(
                    "face",
                    display_name="face",
                    tooltip="The mean face similarity, in which a picture without a face counts "
                    "0; 0 if it is left out.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        prompt: str,
        clip: Any = None,
        clip_vision: Any = None,
        face_analysis: Any = None,
        reference: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        photos = read_photos([images], "image")
        scores: dict[str, Scores] = {}
        if clip_vision is not None:
            scores |= _score_whole(list(photos.values()), prompt, clip, clip_vision, reference)
        if face_analysis is not None and reference is not None:
            scores["face"] = _compare(face_analysis, reference, images)[0]
        if not scores:
            raise ValueError(
                "Nothing can be scored. Connect clip and clip_vision and write a prompt for "
                "CLIP-T, clip_vision and reference for CLIP-I, face_analysis and reference for "
                "the face similarity."
            )
        means = {name: float(np.nan_to_num(values).mean()) for name, values in scores.items()}
        lines = [
            f"{name}: {', '.join(f'{s} {_describe(values[n])}' for s, values in scores.items())}"
            for n, name in enumerate(photos)
        ]
        lines.append(f"mean: {', '.join(f'{name} {mean:.3f}' for name, mean in means.items())}")
        text = "\n".join(lines)
        found = (means.get(name, 0.0) for name in ("CLIP-T", "CLIP-I", "face"))
        return io.NodeOutput(text, *found, ui=ui.PreviewText(text))


def _compare(
    face_analysis: Any, reference: torch.Tensor, images: torch.Tensor
) -> tuple[Scores, list[str]]:
    """Return each picture's similarity, which is NaN without a face, and each picture's name."""
    person = read_person(face_analysis, reference)
    names, scores = [], []
    for name, _, faces in look_through(face_analysis, read_photos([images], "image")):
        names.append(name)
        scores.append(_most_alike(faces, person))
    return np.array(scores), names


def _most_alike(faces: list[Face], person: Vector) -> float:
    return max(similarities([face.embedding for face in faces], person), default=float("nan"))


def _rank(score: float) -> float:
    """Return a sort key: pictures without a face come last."""
    return float("-inf") if np.isnan(score) else score


def _describe(score: float) -> str:
    return "no face" if np.isnan(score) else f"{score:.3f}"


def _score_whole(
    photos: list[Photo],
    prompt: str,
    clip: Any,
    clip_vision: Any,
    reference: torch.Tensor | None,
) -> dict[str, Scores]:
    """Return CLIP-T if there are a prompt and text encoder, and CLIP-I if there is a reference."""
    pictures = host_clip.see(clip_vision, photos)
    scores = {}
    if clip is not None and prompt.strip():
        texts = host_clip.read(clip, [prompt])
        host_clip.check_widths(texts, pictures)
        scores["CLIP-T"] = clip_scores(pictures, texts)
    if reference is not None:
        given = host_clip.see(clip_vision, list(read_photos([reference], "reference").values()))
        scores["CLIP-I"] = np.mean([clip_scores(pictures, photo[None]) for photo in given], axis=0)
    return scores

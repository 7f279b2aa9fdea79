"""From photos to an identity."""

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_api.latest import io, ui

from ..infinite_id import annotate
from ..infinite_id.adapter import Adapter
from ..infinite_id.face import (
    MIN_CONFIDENCE,
    Face,
    FaceError,
    Order,
    Photo,
    Vector,
    align,
    average_person,
    crop_for_recogniser,
    detect,
    draw_mask,
    sort_faces,
)
from ..infinite_id.host.encode import encode_identities
from ..infinite_id.identity import Source
from ..infinite_id.mappers import Recipe
from ..infinite_id.mixing import average, stack
from ..infinite_id.photo import digest, read_photos, to_image
from . import sockets

CROP_SIZE = 224
THUMBNAIL = 128
SHEET = 672
"""The height of a preview: three times 224, six times 112."""
SMALLEST_FACE = 32
"""In photo pixels. ArcFace sees 112: what is scaled up further is a blur, not a person."""
MOST_PHOTOS = 16
COMBINE = {"stack": stack, "average": average}
ERROR, SKIP = "error", "skip"


class EncodeIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDEncodeIdentity",
            display_name="Encode Identity",
            category=sockets.CATEGORY,
            description="Turns photos of a person into an identity. Of each photo one face is "
            "taken, the largest by default; several photos are stacked, as in the paper. The "
            "preview shows every face that was found and what the nets see of the chosen one.",
            search_aliases=["face embeds", "encode face", "photo to identity"],
            inputs=[
                sockets.Adapter.Input("adapter", tooltip="From Load Infinite-ID Model."),
                io.MultiType.Input(
                    "face_analysis",
                    sockets.FACE_ANALYSIS_TYPES,
                    tooltip="From Load Face Analysis, or another pack's InsightFace loader.",
                ),
                io.Image.Input("image", tooltip="One photo, or a batch of photos of one person."),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="The CLIP image encoder that the adapter was trained with, mostly "
                    "CLIP ViT-H/14. FaceID and InstantID need none.",
                ),
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip="Only for face 'most similar to reference': a photo in which the "
                    "person's face is the largest.",
                ),
                io.Autogrow.Input(
                    "more_images",
                    template=io.Autogrow.TemplateNames(
                        io.Image.Input(
                            "image",
                            tooltip="A further photo of the person, or a batch, of any size.",
                        ),
                        names=[f"image_{number}" for number in range(2, MOST_PHOTOS + 1)],
                        min=0,
                    ),
                    optional=True,
                    tooltip="Further photos of the person, of any size: a new input appears as "
                    "the last one is connected.",
                ),
                io.Combo.Input(
                    "combine",
                    options=list(COMBINE),
                    default="stack",
                    optional=True,
                    tooltip="Several photos: 'stack' keeps the tokens of each (the paper's way). "
                    "'average' makes one face of them, with the tokens of a single photo.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    optional=True,
                    tooltip="How much each photo counts, relative to the others, such as '1, 0.5': "
                    "one number for each photo, in order. Empty: all alike.",
                ),
                io.Combo.Input(
                    "face",
                    options=[order.value for order in Order],
                    default=Order.LARGEST.value,
                    optional=True,
                    tooltip="How the faces in a photo are counted. The first is taken, or the one "
                    "that face_index says; the preview shows the numbers.",
                ),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=99,
                    optional=True,
                    tooltip="Which face to take, counted as 'face' says: 0 is the first.",
                    advanced=True,
                ),
                io.Float.Input(
                    "min_confidence",
                    default=MIN_CONFIDENCE,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="How sure the detector must be that something is a face. Lower finds "
                    "drawn, turned or covered faces, and more that are none.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "on_no_face",
                    options=[ERROR, SKIP],
                    default=ERROR,
                    optional=True,
                    tooltip="For a photo without a usable face: stop with an error, or go on "
                    "without that photo. There is an error in any case if no photo is left.",
                ),
            ],
            outputs=[
                sockets.Identity.Output(
                    "identity", display_name="identity", tooltip="For Apply Infinite-ID."
                ),
                io.Image.Output(
                    "face",
                    display_name="aligned face",
                    tooltip="The crop of each photo that the CLIP encoder sees.",
                ),
                io.Mask.Output(
                    "face_mask",
                    display_name="face mask",
                    tooltip="An oval over the face in each photo of 'image', for inpainting; "
                    "empty for photos that were skipped.",
                ),
                io.Image.Output(
                    "preview",
                    display_name="preview",
                    tooltip="What the node shows: each photo with its faces numbered, the chosen "
                    "one in green, and the crops that the face and CLIP nets see.",
                ),
                io.String.Output(
                    "info",
                    display_name="info",
                    tooltip="One line for each photo: the face that was taken, or why none was.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        adapter: Adapter,
        face_analysis: Any,
        image: torch.Tensor,
        clip_vision: Any = None,
        reference: torch.Tensor | None = None,
        more_images: dict[str, torch.Tensor] | None = None,
        combine: str = "stack",
        weights: str = "",
        face: str = Order.LARGEST.value,
        face_index: int = 0,
        min_confidence: float = MIN_CONFIDENCE,
        on_no_face: str = ERROR,
    ) -> io.NodeOutput:
        photos = read_photos([image, *(more_images or {}).values()])
        shares = read_weights(weights, len(photos))
        order = Order(face)
        person = _read_person(face_analysis, reference) if order is Order.MOST_SIMILAR else None

        progress = ProgressBar(len(photos))
        finds = []
        for name, photo in photos.items():
            throw_exception_if_processing_interrupted()
            faces = sort_faces(detect(face_analysis, photo, min_confidence), order, person)
            finds.append(Find(name, photo, faces, face_index))
            if finds[-1].problem:
                _report(finds[-1].problem, on_no_face)
            progress.update(1)
        used = [find for find in finds if not find.problem]
        if not used:
            raise FaceError(f"No photo is left, all {len(finds)} were skipped. {finds[0].problem}")

        recipe = adapter.config.mapper.recipe
        size = CROP_SIZE if clip_vision is None else clip_vision.image_size
        crops = torch.cat([to_image(align(f.photo, f.face, size, recipe.crop)) for f in used])
        identities = encode_identities(
            adapter, clip_vision, [f.face for f in used], crops, [f.source for f in used]
        )
        kept = [s for s, find in zip(shares, finds, strict=True) if not find.problem]
        sheets = torch.cat([to_image(_draw(find, face_analysis, recipe, size)) for find in finds])
        return io.NodeOutput(
            COMBINE[combine](identities, kept),
            crops,
            torch.from_numpy(np.stack([find.mask for find in finds[: len(image)]])),
            sheets,
            "\n".join(find.line for find in finds),
            ui=ui.PreviewImage(sheets, cls=cls),
        )


@dataclass(frozen=True, eq=False)
class Find:
    """A photo, its faces in the order in which they are counted, and which one is wanted."""

    name: str
    photo: Photo
    faces: list[Face]
    index: int

    @property
    def face(self) -> Face:
        """The wanted face, if there is no problem."""
        return self.faces[self.index]

    @property
    def problem(self) -> str:
        """Why there is no usable face; empty if there is one."""
        if not self.faces:
            return (
                f"No face found in {self.name}. Use a photo in which the face is upright, "
                "sharp and at least 60 pixels wide, or raise the detection size in Load Face "
                "Analysis, or lower min_confidence."
            )
        if self.index >= len(self.faces):
            return (
                f"No face {self.index} in {self.name}: it has {len(self.faces)}, counted from 0. "
                "Lower face_index."
            )
        width, height = self.face.size
        if min(width, height) < SMALLEST_FACE:
            return (
                f"The face in {self.name} is {width:.0f}x{height:.0f} pixels small; at least "
                f"{SMALLEST_FACE}x{SMALLEST_FACE} are needed to recognise anybody. Use a larger "
                "photo."
            )
        return ""

    @property
    def mask(self) -> Any:
        """`(height, width)` in 0..1."""
        shape = self.photo.shape[:2]
        return np.zeros(shape, np.float32) if self.problem else draw_mask(shape, self.face)

    @property
    def source(self) -> Source:
        """What an identity remembers of this photo."""
        label = f"{self.name}, face of score {self.face.score:.2f}"
        thumbnail = align(self.photo, self.face, THUMBNAIL)[..., ::-1].copy()
        return Source(label, digest(self.photo), torch.from_numpy(thumbnail))

    @property
    def line(self) -> str:
        """For the user: what was taken, or why nothing was."""
        if self.problem:
            return f"Skipped: {self.problem}"
        width, height = self.face.size
        return (
            f"{self.name}: face {self.index} of {len(self.faces)}, {width:.0f}x{height:.0f} "
            f"pixels, confidence {self.face.score:.2f}"
        )


def read_weights(text: str, count: int) -> list[float]:
    """Numbers between commas, one for each photo; all 1 if there is nothing.

    Raises:
        ValueError: if they are no such numbers, or not as many.
    """
    if not text.strip():
        return [1.0] * count
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = [math.nan]
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(
            f"weights must be numbers from 0 on with commas between, such as '1, 0.5'; got "
            f"'{text}'."
        )
    if len(weights) != count:
        raise ValueError(
            f"weights has {len(weights)} numbers, and there are {count} photos: give one number "
            "for each photo, or none for all alike."
        )
    return weights


def _read_person(face_analysis: Any, reference: torch.Tensor | None) -> Vector:
    if reference is None:
        raise ValueError(
            "Connect a photo of the person to 'reference', or choose another way in 'face'."
        )
    return read_person(face_analysis, reference)


def read_person(face_analysis: Any, reference: torch.Tensor) -> Vector:
    """The mean embedding of the largest faces of an IMAGE batch.

    Raises:
        FaceError: naming the photo without a face.
    """
    largest = []
    for name, photo in read_photos([reference], "reference").items():
        faces = detect(face_analysis, photo)
        if not faces:
            raise FaceError(
                f"No face found in {name}. Use a photo in which the face is upright and sharp."
            )
        largest.append(faces[0])
    return average_person(largest)


def _report(problem: str, on_no_face: str) -> None:
    if on_no_face == ERROR:
        raise FaceError(problem)
    logging.warning("Infinite-ID: photo skipped. %s", problem)


def _draw(find: Find, face_analysis: Any, recipe: Recipe, size: int) -> Photo:
    """A preview of one photo: all faces, and what the adapter's nets see of the chosen one."""
    marks = [
        annotate.Mark(
            face,
            f"{number}: {face.score:.2f}",
            annotate.CHOSEN if not find.problem and face is find.face else annotate.OTHER,
        )
        for number, face in enumerate(find.faces)
    ]
    picture = annotate.draw_faces(find.photo, marks, SHEET, "skipped" if find.problem else "")
    crops = []
    if recipe.face_width and not find.problem:
        crop = crop_for_recogniser(face_analysis, find.photo, find.face)
        crops.append((f"face net sees {len(crop)}x{len(crop)}", crop))
    if recipe.clip_width and not find.problem:
        crop = align(find.photo, find.face, size, recipe.crop)
        crops.append((f"CLIP sees {size}x{size}", crop))
    return annotate.lay_out(picture, crops, SHEET)

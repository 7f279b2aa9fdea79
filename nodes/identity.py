"""From photos to an identity."""

from typing import Any

import numpy as np
import torch
from comfy.utils import ProgressBar
from comfy_api.latest import io, ui

from ..infinite_id.adapter import Adapter
from ..infinite_id.face import Face, FaceError, Photo, align, detect, draw_mask
from ..infinite_id.host.encode import encode_identity
from ..infinite_id.photo import read_photo, to_image
from . import sockets

CROP_SIZE = 224
SMALLEST_FACE = 32
"""In photo pixels. ArcFace sees 112: what is scaled up further is a blur, not a person."""


class EncodeIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDEncodeIdentity",
            display_name="Encode Identity",
            category=sockets.CATEGORY,
            description="Turns photos of a person into an identity. Of each photo the largest "
            "face is taken; several photos are stacked.",
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
                    tooltip="An oval over the face in each photo, for inpainting.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, adapter: Adapter, face_analysis: Any, image: torch.Tensor, clip_vision: Any = None
    ) -> io.NodeOutput:
        photos = [_read(image, index) for index in range(len(image))]
        progress = ProgressBar(len(photos))
        faces = []
        for index, photo in enumerate(photos):
            faces.append(_find_face(face_analysis, photo, _name(image, index)))
            progress.update(1)
        size = CROP_SIZE if clip_vision is None else clip_vision.image_size
        crop = adapter.config.mapper.recipe.crop
        cuts = [align(p, f, size, crop) for p, f in zip(photos, faces, strict=True)]
        crops = torch.cat([to_image(cut) for cut in cuts])
        masks = [draw_mask(p.shape[:2], f) for p, f in zip(photos, faces, strict=True)]
        identity = encode_identity(adapter, clip_vision, faces, crops)
        return io.NodeOutput(
            identity,
            crops,
            torch.from_numpy(np.stack(masks)),
            ui=ui.PreviewImage(crops, cls=cls),
        )


def _name(image: torch.Tensor, index: int) -> str:
    height, width = image.shape[1:3]
    return f"photo {index + 1} of {len(image)} ({width}x{height})"


def _read(image: torch.Tensor, index: int) -> Photo:
    try:
        return read_photo(image[index])
    except ValueError as error:
        raise ValueError(f"Encode Identity cannot use {_name(image, index)}: {error}.") from error


def _find_face(face_analysis: Any, photo: Photo, name: str) -> Face:
    faces = detect(face_analysis, photo)
    if not faces:
        raise FaceError(
            f"No face found in {name}. Use a photo in which the face is upright, "
            "sharp and at least 60 pixels wide, or raise the detection size in Load Face Analysis."
        )
    width, height = faces[0].size
    if min(width, height) < SMALLEST_FACE:
        raise FaceError(
            f"The face in {name} is {width:.0f}x{height:.0f} pixels small; at least "
            f"{SMALLEST_FACE}x{SMALLEST_FACE} are needed to recognise anybody. Use a larger photo."
        )
    return faces[0]

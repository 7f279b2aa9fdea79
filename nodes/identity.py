"""From photos to an identity."""

from typing import Any

import numpy as np
import torch
from comfy.utils import ProgressBar
from comfy_api.latest import io, ui

from ..infinite_id.adapter import Adapter, encode
from ..infinite_id.face import Face, FaceError, Photo, align, detect, draw_mask
from ..infinite_id.host.clip import encode_image, encode_nothing
from ..infinite_id.identity import Identity
from ..infinite_id.mixing import stack
from ..infinite_id.photo import read_photo, to_image
from . import sockets

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
                io.ClipVision.Input(
                    "clip_vision",
                    tooltip="The CLIP image encoder that the adapter was trained with: "
                    "CLIP ViT-H/14 for SDXL adapters.",
                ),
                io.Image.Input("image", tooltip="One photo, or a batch of photos of one person."),
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
        cls, adapter: Adapter, face_analysis: Any, clip_vision: Any, image: torch.Tensor
    ) -> io.NodeOutput:
        photos = [_read(image, index) for index in range(len(image))]
        progress = ProgressBar(len(photos))
        faces = []
        for index, photo in enumerate(photos):
            faces.append(_find_face(face_analysis, photo, _name(image, index)))
            progress.update(1)
        size = clip_vision.image_size
        crops = torch.cat([to_image(align(p, f, size)) for p, f in zip(photos, faces, strict=True)])
        masks = [draw_mask(p.shape[:2], f) for p, f in zip(photos, faces, strict=True)]
        identity = encode_identity(adapter, clip_vision, faces, crops)
        return io.NodeOutput(
            identity,
            crops,
            torch.from_numpy(np.stack(masks)),
            ui=ui.PreviewImage(crops, cls=cls),
        )


def encode_identity(
    adapter: Adapter, clip_vision: Any, faces: list[Face], crops: torch.Tensor
) -> Identity:
    """Map each face to its tokens and stack them.

    Args:
        crops: `(number of faces, size, size, 3)` float in 0..1, the aligned faces.

    Raises:
        ValueError: if the CLIP encoder or the recogniser is not the adapter's.
    """
    hidden = encode_image(clip_vision, crops).cpu()
    nothing = encode_nothing(clip_vision).cpu()
    vectors = torch.from_numpy(np.stack([face.embedding for face in faces]))
    _check_widths(adapter, vectors, hidden)
    tokens = encode(adapter, vectors, hidden)
    unconditional = encode(adapter, torch.zeros_like(vectors[:1]), nothing)
    return stack(
        [
            Identity(token[None], unconditional, adapter, (f"face of score {face.score:.2f}",))
            for token, face in zip(tokens, faces, strict=True)
        ]
    )


def _check_widths(adapter: Adapter, vectors: torch.Tensor, hidden: torch.Tensor) -> None:
    config = adapter.config.mapper
    if hidden.shape[-1] != config.clip_width:
        raise ValueError(
            f"The CLIP vision model gives {hidden.shape[-1]} wide features, and the adapter "
            f"'{adapter.name}' was trained on {config.clip_width} wide ones. SDXL adapters need "
            "CLIP ViT-H/14 (1280 wide) in Load CLIP Vision."
        )
    if vectors.shape[-1] != config.face_width:
        raise ValueError(
            f"The face model gives {vectors.shape[-1]} numbers, and the adapter '{adapter.name}' "
            f"was trained on {config.face_width}: choose its face model in Load Face Analysis."
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

"""From photos to an identity."""

from dataclasses import replace
from typing import Any

import torch
from comfy_api.latest import io

from ..infinite_id.adapters.adapter import Adapter
from ..infinite_id.faces.face import MIN_CONFIDENCE, Order
from ..infinite_id.host.encode import Encoder
from . import sockets
from .encoding import (
    ERROR,
    Wishes,
    check_more_images,
    encode,
    image_input,
    outputs,
    read_more,
    wish_inputs,
)
from .node import Node


class Encode(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDEncode",
            display_name="Encode Identity",
            category=sockets.CATEGORY,
            description="Turns photos of a person into an identity. Of each photo one face is "
            "taken, the largest by default; several photos are stacked, as in the paper. The "
            "preview shows every face that was found and what the nets see of the chosen one.",
            search_aliases=["face embeds", "encode face", "photo to identity"],
            inputs=[
                io.MultiType.Input(
                    "encoder",
                    [sockets.Encoder, sockets.Adapter],
                    tooltip="Encoder from Infinite-ID Unified Loader. Or an adapter from Load "
                    "Infinite-ID Model, with the models below in inputs of their own.",
                ),
                image_input(),
                io.MultiType.Input(
                    "face_analysis",
                    sockets.FACE_ANALYSIS_TYPES,
                    optional=True,
                    tooltip="Instead of the encoder's: from Load Face Analysis, or another pack's "
                    "InsightFace loader.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Instead of the encoder's: the CLIP image encoder that the adapter was "
                    "trained with, from Load CLIP Vision.",
                ),
                *wish_inputs(
                    io.Int.Input(
                        "face_number",
                        default=1,
                        min=1,
                        max=100,
                        optional=True,
                        tooltip="Which face to take, counted as 'face' says: 1 is the first.",
                        advanced=True,
                    )
                ),
            ],
            outputs=outputs(),
            accept_all_inputs=True,  # to explain photos that an API prompt gives under other names
        )

    @classmethod
    def validate_inputs(cls, more_images: Any = None) -> bool | str:
        return check_more_images(more_images)

    @classmethod
    def execute(
        cls,
        encoder: Encoder | Adapter,
        image: torch.Tensor,
        face_analysis: Any = None,
        clip_vision: Any = None,
        reference: torch.Tensor | None = None,
        more_images: dict[str, torch.Tensor] | torch.Tensor | None = None,
        combine: str = "stack",
        weights: str = "",
        face: str = Order.LARGEST.value,
        face_number: int = 1,
        min_confidence: float = MIN_CONFIDENCE,
        on_no_face: str = ERROR,
        **others: Any,
    ) -> io.NodeOutput:
        wishes = Wishes(
            combine, weights, Order(face), face_number - 1, 1, min_confidence, on_no_face
        )
        whole = encoder if isinstance(encoder, Encoder) else Encoder(encoder, None, None)
        if face_analysis is not None:
            whole = replace(whole, analysis=face_analysis)
        if clip_vision is not None:
            whole = replace(whole, clip=clip_vision)
        return encode(cls, whole, [image, *read_more(more_images, others)], reference, wishes)

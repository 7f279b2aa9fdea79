"""From photos to an identity, with every model in an input of its own."""

from typing import Any

import torch
from comfy_api.latest import io

from ..infinite_id.adapters.adapter import Adapter
from ..infinite_id.faces.face import MIN_CONFIDENCE, Order
from ..infinite_id.host.encode import Encoder
from . import sockets
from .detection import face_analysis_input
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


class EncodeIdentity(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDEncodeIdentity",
            display_name="Encode Identity (old)",
            category=sockets.CATEGORY,
            description="Use Encode Identity instead, which takes Infinite-ID Unified Loader's one "
            "wire, or the same models as this node. This one stays for saved workflows.",
            search_aliases=["face embeds", "encode face"],
            inputs=[
                sockets.Adapter.Input("adapter", tooltip="From Load Infinite-ID Model."),
                face_analysis_input(),
                image_input(),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="The CLIP image encoder that the adapter was trained with, mostly "
                    "CLIP ViT-H/14. FaceID and InstantID need none.",
                ),
                *wish_inputs(
                    io.Int.Input(
                        "face_index",
                        default=0,
                        min=0,
                        max=99,
                        optional=True,
                        tooltip="Which face to take, counted as 'face' says: 0 is the first.",
                        advanced=True,
                    ),
                ),
            ],
            outputs=outputs(),
            is_deprecated=True,
            accept_all_inputs=True,  # to explain photos that an API prompt gives under other names
        )

    @classmethod
    def validate_inputs(cls, more_images: Any = None) -> bool | str:
        return check_more_images(more_images)

    @classmethod
    def execute(
        cls,
        adapter: Adapter,
        face_analysis: Any,
        image: torch.Tensor,
        clip_vision: Any = None,
        reference: torch.Tensor | None = None,
        more_images: dict[str, torch.Tensor] | torch.Tensor | None = None,
        combine: str = "stack",
        weights: str = "",
        face: str = Order.LARGEST.value,
        face_index: int = 0,
        min_confidence: float = MIN_CONFIDENCE,
        on_no_face: str = ERROR,
        **others: Any,
    ) -> io.NodeOutput:
        wishes = Wishes(combine, weights, Order(face), face_index, 0, min_confidence, on_no_face)
        encoder = Encoder(adapter, face_analysis, clip_vision)
        batches = [image, *read_more(more_images, others)]
        return encode(cls, encoder, batches, reference, wishes)

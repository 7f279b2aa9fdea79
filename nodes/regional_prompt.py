"""A prompt for one place of the picture, such as the place of one person."""

from typing import Any

import torch
from comfy_api.latest import io
from node_helpers import conditioning_set_values

from . import sockets
from .mask import check_mask
from .node import Node


class RegionalPrompt(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDRegionalPrompt",
            display_name="Regional Prompt",
            category=sockets.CATEGORY,
            description="Adds a prompt for one place to the prompt of the whole picture: what this "
            "person wears, holds or does, with the same mask as the person's Apply Infinite-ID. "
            "One node for each person, one after the other.",
            search_aliases=["prompt per person", "mask prompt", "attention couple", "region"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoders of the checkpoint."),
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="The prompt of the whole picture, or what another Regional Prompt "
                    "gives.",
                ),
                io.Mask.Input(
                    "mask", tooltip="Where the prompt counts; any resolution. From Column Mask."
                ),
                io.String.Input(
                    "prompt",
                    default="a woman in a red dress",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What is there, in words of its own: it does not read the prompt of "
                    "the whole picture.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How much it counts beside the prompt of the whole picture, which "
                    "counts 1: at 1 both are halves there.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "combined",
                    display_name="conditioning",
                    tooltip="For a sampler, as positive, or for the next Regional Prompt.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        clip: Any,
        conditioning: list[list[Any]],
        mask: torch.Tensor,
        prompt: str,
        strength: float,
    ) -> io.NodeOutput:
        if clip is None:
            raise ValueError(
                "Regional Prompt: the checkpoint holds no text encoders. Connect Load CLIP."
            )
        place = check_mask("Regional Prompt", mask)
        encoded = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
        values = {
            "mask": place,
            "set_area_to_bounds": False,
            "mask_strength": strength,
        }
        return io.NodeOutput(conditioning + conditioning_set_values(encoded, values))

"""A model that reads staged words."""

from typing import Any

from comfy_api.latest import io

from . import sockets
from .node import Node


class ApplyStagedIdentity(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDApplyStagedIdentity",
            display_name="Apply Staged Identity",
            category=sockets.CATEGORY,
            description="Lets a model read the words of Staged Identity Prompt: those of each "
            "noise level, and others for the cross-attention's keys than for its values "
            "(SeFi-IDE). Prompts without such words are as ever.",
            search_aliases=["sefi-ide", "sefi", "staged tokens", "beyond inserting"],
            is_experimental=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="SDXL, SD 1.5 or SD 2.1; before or after LoRAs, Apply Infinite-ID and "
                    "other nodes.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="1: the words of each stage. 0: the mean of all stages, as without "
                    "this node.",
                ),
            ],
            outputs=[io.Model.Output("patched", display_name="model", tooltip="For any sampler.")],
        )

    @classmethod
    def execute(cls, model: Any, strength: float) -> io.NodeOutput:
        from ..infinite_id.staged_identity.host_apply import apply_staged

        return io.NodeOutput(apply_staged(model, strength) if strength else model)

"""The LoRA inside FaceID adapters, as an ordinary model LoRA."""

from typing import Any

from comfy.sd import load_lora_for_models
from comfy_api.latest import io

from ..infinite_id.adapters.adapter import Adapter, check_fits
from ..infinite_id.host.patch import read_unet
from . import sockets
from .node import Node


class ApplyFaceIDLoRA(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDFaceLoRA",
            display_name="Apply FaceID LoRA",
            category=sockets.CATEGORY,
            description="FaceID adapters were trained together with a LoRA of the model's "
            "attention. This applies it, as Load LoRA would, with a strength. It acts on both "
            "streams.",
            search_aliases=["faceid lora", "ipadapter lora"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL model."),
                sockets.Adapter.Input(
                    "adapter", tooltip="A FaceID adapter, from Load Infinite-ID Model."
                ),
                io.Float.Input(
                    "strength",
                    default=0.6,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="1 is as trained; lower keeps more of the prompt. 0: no LoRA.",
                ),
            ],
            outputs=[
                io.Model.Output("patched", display_name="model", tooltip="For Apply Infinite-ID.")
            ],
        )

    @classmethod
    def execute(cls, model: Any, adapter: Adapter, strength: float) -> io.NodeOutput:
        if strength == 0:
            return io.NodeOutput(model)
        if adapter.lora is None:
            raise ValueError(
                f"The adapter '{adapter.name}' holds no LoRA; only FaceID adapters do. Remove "
                "Apply FaceID LoRA, or load a FaceID adapter."
            )
        return io.NodeOutput(add_lora(model, adapter, strength))


def add_lora(model: Any, adapter: Adapter, strength: float) -> Any:
    """Return a copy of the model with the adapter's LoRA.

    Raises:
        ValueError: if it does not fit the model. The host would leave out the parts that do not.
    """
    assert adapter.lora is not None
    check_fits(adapter, *read_unet(model))
    patched, _ = load_lora_for_models(model, None, adapter.lora.to_state_dict(), strength, 0)
    return patched

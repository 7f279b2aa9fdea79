"""Loader nodes."""

import logging
from typing import Any

from comfy_api.latest import io

from ..infinite_id.adapters import formats
from ..infinite_id.adapters.adapter import Adapter
from ..infinite_id.adapters.formats import Kind
from ..infinite_id.adapters.mappers import Crop
from ..infinite_id.faces import model_pack
from ..infinite_id.faces.providers import PROVIDERS
from . import folders, sockets
from .node import Node

AUTO = "auto"


class LoadInfiniteIDModel(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDLoadModel",
            display_name="Load Infinite-ID Model",
            category=sockets.CATEGORY,
            description="Loads an adapter: the mapper that turns a face into identity tokens, and "
            "the image cross-attention weights. Native Infinite-ID adapters, and for SDXL "
            "IP-Adapter, its Plus, Plus Face, Composition, FaceID, FaceID PlusV2, Portrait and "
            "Portrait unnorm, and InstantID, told apart by contents.",
            search_aliases=["load adapter", "ipadapter faceid", "instantid loader"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folders.list_adapters(),
                    tooltip="A .safetensors or .bin file in models/infinite_id, models/ipadapter "
                    "or models/instantid.",
                ),
                io.Float.Input(
                    "shortcut_scale",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="FaceID PlusV2 only: how much of the CLIP features is added to the "
                    "face vector's tokens. Other adapters ignore it.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "kind",
                    options=[AUTO, *(kind.value for kind in Kind)],
                    default=AUTO,
                    optional=True,
                    tooltip="Some kinds have the same tensors: InstantID and FaceID Portrait "
                    "unnorm; Plus Face, Plus and Composition. 'auto' tells them apart by the "
                    "file's name, such as 'portrait' or 'plus'; choose if the name does not tell.",
                    advanced=True,
                ),
            ],
            outputs=[
                sockets.Adapter.Output(
                    "adapter",
                    display_name="adapter",
                    tooltip="For Encode Identity, and Apply FaceID LoRA.",
                ),
                io.String.Output(
                    "info",
                    display_name="info",
                    tooltip="What the file was recognised as, and the models that it wants.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None) -> bool | str:
        return folders.check(folders.find_adapter, model_name)

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None, **_: Any) -> Any:
        return folders.fingerprint(folders.find_adapter, model_name)

    @classmethod
    def execute(cls, model_name: str, shortcut_scale: float, kind: str = AUTO) -> io.NodeOutput:
        chosen = None if kind == AUTO else Kind(kind)
        adapter = formats.load(folders.find_adapter(model_name), shortcut_scale, chosen)
        info = describe(adapter)
        logging.info("Infinite-ID: %s", info)
        return io.NodeOutput(adapter, info)


def describe(adapter: Adapter) -> str:
    """Describe in one line what an adapter is and what it needs."""
    recipe = adapter.config.mapper.recipe
    finder = "no face model" if recipe.crop is Crop.WHOLE else "a face model to find faces"
    wants = [
        f"face model {recipe.face_model}" if recipe.face_width else finder,
        f"CLIP vision {recipe.clip_model}" if recipe.clip_width else "no CLIP vision",
        *(["with a LoRA: see Apply FaceID LoRA"] if adapter.lora else []),
    ]
    return f"{adapter.name} is {recipe.name}; wants {', '.join(wants)}"


def detection_inputs(optional: bool = False) -> tuple[io.Combo.Input, io.Int.Input]:
    """Where the face nets run, and how large photos are for them; hidden at first if optional."""
    provider = io.Combo.Input(
        "provider",
        options=[AUTO, *PROVIDERS],
        default=AUTO,
        tooltip="Where the face nets run. 'auto' takes the best that onnxruntime has; the log says "
        "which.",
        optional=optional,
        advanced=optional or None,  # type: ignore[arg-type]  # None, as the host's default
    )
    size = io.Int.Input(
        "detection_size",
        default=model_pack.DETECTION_SIZE,
        min=128,
        max=2048,
        step=32,
        tooltip="Photos are scaled to this many pixels for detection, rounded up to a multiple of "
        "32. A larger value finds smaller faces but is slower.",
        optional=optional,
        advanced=True,
    )
    return provider, size


class LoadFaceAnalysis(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDLoadFaceAnalysis",
            display_name="Load Face Analysis",
            category=sockets.CATEGORY,
            description="Loads an InsightFace model pack: a face detector and a recogniser. "
            "Packs: models/insightface/models/<name>.",
            search_aliases=["insightface loader", "antelopev2", "buffalo_l"],
            inputs=[
                io.Combo.Input(
                    "pack",
                    options=list(folders.list_packs()),
                    tooltip="A folder of .onnx files in models/insightface/models. It must be the "
                    "recogniser that the adapter was trained with.",
                ),
                *detection_inputs(),
            ],
            outputs=[
                sockets.FaceAnalysis.Output(
                    "face_analysis",
                    display_name="face analysis",
                    tooltip="An InsightFace FaceAnalysis; other packs' nodes take it too.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, pack: str | None) -> bool | str:
        return folders.check(folders.find_pack, pack)

    @classmethod
    def execute(cls, pack: str, provider: str, detection_size: int) -> io.NodeOutput:
        found = folders.find_pack(pack)
        return io.NodeOutput(model_pack.load_analysis(found, provider, detection_size))

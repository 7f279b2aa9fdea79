"""One node that loads all models that an identity needs."""

import logging
from typing import Any

import comfy.clip_vision
from comfy_api.latest import io

from ..infinite_id.adapters import formats
from ..infinite_id.adapters.adapter import Adapter
from ..infinite_id.adapters.mappers import Crop, Recipe
from ..infinite_id.faces import model_pack
from ..infinite_id.host.encode import Encoder
from ..infinite_id.host.patch import read_unet
from ..infinite_id.presets import PLUS_V2, PRESETS, SEARCH_WORDS
from . import finding, folders, sockets
from .load import AUTO, describe, detection_inputs
from .lora import add_lora
from .node import Node


class UnifiedLoader(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDUnifiedLoader",
            display_name="Infinite-ID Unified Loader",
            category=sockets.CATEGORY,
            description="Finds the adapter of a preset, and the face model, CLIP vision model and "
            "LoRA that it wants, among your files by what they are, whatever their names. What is "
            "missing is said with its link, size and folder before anything runs.",
            search_aliases=[
                "ipadapter unified loader",
                "load adapter",
                *SEARCH_WORDS,
            ],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL model, from Load Checkpoint."),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default=PLUS_V2,
                    tooltip="Which kind of adapter to use. 'IP-Adapter FaceID PlusV2' is a good "
                    "start. 'Infinite-ID' takes adapters of this pack's own kind.",
                ),
                io.Float.Input(
                    "lora_strength",
                    default=0.6,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="FaceID and FaceID PlusV2 were trained with a LoRA, which is in their "
                    "file: 1 is as trained, 0 leaves it out. Other presets have none.",
                ),
                io.Combo.Input(
                    "face_pack",
                    options=[AUTO, *folders.list_packs()],
                    default=AUTO,
                    tooltip="'auto' takes the face model that the adapter was trained with. Choose "
                    "one yourself if that cannot be told.",
                    optional=True,
                    advanced=True,
                ),
                *detection_inputs(optional=True),
            ],
            outputs=[
                io.Model.Output(
                    "patched",
                    display_name="model",
                    tooltip="For Apply Infinite-ID: the model with the LoRA.",
                ),
                sockets.Encoder.Output(
                    "encoder",
                    display_name="encoder",
                    tooltip="For Encode Identity: adapter, face model and CLIP vision in one wire.",
                ),
                sockets.Adapter.Output(
                    "adapter",
                    display_name="adapter",
                    tooltip="The adapter alone, for Load Identity.",
                ),
                sockets.FaceAnalysis.Output(
                    "face_analysis",
                    display_name="face analysis",
                    tooltip="The face model alone, for nodes that look for faces.",
                ),
                io.String.Output(
                    "info", display_name="info", tooltip="Which files were found and taken."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, preset: str | None, face_pack: str | None = AUTO) -> bool | str:
        if preset is None:  # it comes from another node
            return True
        if preset not in PRESETS:
            return _describe_unknown(preset)
        gaps = finding.list_gaps(preset, None if face_pack == AUTO else face_pack)
        return _tell(preset, gaps) if gaps else True

    @classmethod
    def fingerprint_inputs(cls, preset: str | None, **_: Any) -> Any:
        return None if preset is None else finding.stamp(preset)

    @classmethod
    def execute(
        cls,
        model: Any,
        preset: str,
        lora_strength: float,
        face_pack: str = AUTO,
        provider: str = AUTO,
        detection_size: int = model_pack.DETECTION_SIZE,
    ) -> io.NodeOutput:
        adapter = _load_adapter(model, preset)
        recipe = adapter.config.mapper.recipe
        pack = _choose_pack(recipe, face_pack)
        found = folders.find_pack(pack) if pack else None
        analysis = model_pack.load_analysis(found, provider, detection_size) if found else None
        clip = _load_clip(recipe)
        strength = lora_strength if adapter.lora else 0.0
        patched = add_lora(model, adapter, strength) if strength else model
        info = f"{describe(adapter)}. Face model: {pack or 'none'}. LoRA strength: {strength:g}."
        logging.info("Infinite-ID: %s", info)
        encoder = Encoder(adapter, analysis, clip)
        return io.NodeOutput(patched, encoder, adapter, analysis, info)


def _describe_unknown(preset: str) -> str:
    return f"There is no preset '{str(preset)[:100]}'. Choose one of: {', '.join(PRESETS)}."


def _tell(preset: str, gaps: list[str]) -> str:
    complete = ", ".join(name for name in PRESETS if not finding.list_gaps(name)) or "none"
    return (
        f"{preset} is not complete. Download: {'; '.join(gaps)}. Then queue again. Other presets "
        f"that are complete here: {complete}."
    )


def _load_adapter(model: Any, preset: str) -> Adapter:
    """Load the first adapter of this preset that fits the model; if none fits, the first.

    Raises:
        FileNotFoundError: if there is none. A value from a wire was not checked before.
    """
    if preset not in PRESETS:
        raise FileNotFoundError(_describe_unknown(preset))
    files = finding.list_adapter_files(preset)
    if not files:
        raise FileNotFoundError(_tell(preset, finding.list_gaps(preset)))
    layers, _ = read_unet(model)
    fitting = [file for file in files if file.layers == layers]
    return formats.load(folders.find_adapter((fitting or files)[0].choice))


def _choose_pack(recipe: Recipe, choice: str) -> str | None:
    """Return the name of the face model's folder; None if no faces are looked for.

    Raises:
        ValueError: if there are several, and the adapter does not say which it needs.
    """
    if recipe.crop is Crop.WHOLE:
        return None
    if choice != AUTO:
        return choice
    packs = finding.list_face_packs(recipe.face_model)
    if not packs:
        raise FileNotFoundError(_tell(recipe.name, finding.list_gaps(recipe.name)))
    if recipe.face_width and recipe.face_model not in finding.FACE_PACKS and len(packs) > 1:
        raise ValueError(
            f"Several face models are here ({', '.join(packs)}), and the adapter does not say "
            "which it was trained with. Choose it in face_pack."
        )
    return packs[0]


def _load_clip(recipe: Recipe) -> Any:
    if not recipe.clip_model:
        return None
    path = finding.find_clip_vision(recipe.clip_model)
    if path is None:
        raise ValueError(
            f"The adapter was trained with {recipe.clip_model}, and no such file is in "
            "models/clip_vision. Put it there and queue again."
        )
    return comfy.clip_vision.load(str(path))

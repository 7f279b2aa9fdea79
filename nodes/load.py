"""Loader nodes."""

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..infinite_id import face, formats
from . import folders, sockets


class LoadInfiniteIDModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDLoadModel",
            display_name="Load Infinite-ID Model",
            category=sockets.CATEGORY,
            description="Loads an Infinite-ID adapter: the mappers that turn a face into identity "
            "tokens, and the image cross-attention weights. Files: models/infinite_id.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folder_paths.get_filename_list(folders.ADAPTERS),
                    tooltip="A native Infinite-ID adapter (.safetensors) in models/infinite_id.",
                )
            ],
            outputs=[
                sockets.Adapter.Output(
                    "adapter", display_name="adapter", tooltip="For Encode Identity."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model_name: str) -> Any:
        return _stamp(folder_paths.get_full_path(folders.ADAPTERS, model_name))

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise(folders.ADAPTERS, model_name)
        return io.NodeOutput(formats.load(Path(path)))


def _stamp(path: str | None) -> tuple[int, int] | None:
    """Changes when a file is replaced under the same name."""
    if path is None:
        return None
    stat = Path(path).stat()
    return stat.st_size, stat.st_mtime_ns


class LoadFaceAnalysis(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        packs = list(face.list_packs(folders.roots(folders.FACE_MODELS)))
        return io.Schema(
            node_id="InfiniteIDLoadFaceAnalysis",
            display_name="Load Face Analysis",
            category=sockets.CATEGORY,
            description="Loads an InsightFace model pack: a face detector and a recogniser. "
            "Packs: models/insightface/models/<name>.",
            inputs=[
                io.Combo.Input(
                    "pack",
                    options=packs,
                    tooltip="A folder of .onnx files in models/insightface/models. It must be the "
                    "recogniser that the adapter was trained with.",
                ),
                io.Combo.Input(
                    "provider",
                    options=["auto", *face.PROVIDERS],
                    default="auto",
                    tooltip="Where the face nets run. 'auto' takes the best that onnxruntime has; "
                    "the log says which.",
                ),
                io.Int.Input(
                    "detection_size",
                    default=640,
                    min=128,
                    max=2048,
                    step=32,
                    tooltip="Photos are scaled to this many pixels for detection. Larger finds "
                    "smaller faces and takes longer.",
                    advanced=True,
                ),
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
    def execute(cls, pack: str, provider: str, detection_size: int) -> io.NodeOutput:
        packs = face.list_packs(folders.roots(folders.FACE_MODELS))
        return io.NodeOutput(face.load_analysis(packs[pack], provider, detection_size))

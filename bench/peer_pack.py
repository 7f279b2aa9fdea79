"""Imports another pack's folder, and calls its own functions to patch a model.

Nothing of other packs is kept here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.utils
import numpy as np
from comfy.model_patcher import ModelPatcher
from insightface.app.common import Face as DetectedFace
from torch import Tensor

from ..infinite_id.adapters import formats
from ..infinite_id.faces.face import Face
from ..infinite_id.host.encode import encode_identities
from ..infinite_id.identities.identity import Identity, Source

WEIGHT = 0.8
CLIP_WIDTH = 64
TOKEN_WIDTH = 2048  # the peers recognise SDXL by it
SIZE = 256
# The five points of a face that fills a picture of 112 pixels.
TEMPLATE = [[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]]


class FaceAnalysis:
    """Finds the same face in every picture."""

    def __init__(self) -> None:
        self.det_model = ModuleType("detector")
        generator = np.random.default_rng(6)
        self.found = DetectedFace(
            bbox=np.array([0.0, 0.0, SIZE, SIZE]),
            kps=np.array(TEMPLATE, np.float32) * SIZE / 112,
            embedding=generator.standard_normal(512).astype(np.float32),
            det_score=0.9,
        )

    def get(self, _image: Any) -> list[Any]:
        return [self.found]


def import_peer(path: Path) -> ModuleType:
    """Import a node pack from its folder, as the host does."""
    name = f"peer_{path.name}"
    spec = importlib.util.spec_from_file_location(name, path / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def patch_by_peer(
    peer: ModuleType, kind: str, file: Path, model: ModelPatcher, clip: Any, image: Tensor
) -> tuple[ModelPatcher, Tensor]:
    """Patch a model by the peer's own functions; return it and the picture that CLIP saw."""
    parts = {n.rpartition(".")[2]: m for n, m in sys.modules.items() if n.startswith(peer.__name__)}
    faces = FaceAnalysis()
    if kind == "InstantID":
        nodes = parts["InstantID"]
        content: dict[str, Any] = {"image_proj": {}, "ip_adapter": {}}
        for name, x in comfy.utils.load_torch_file(str(file)).items():
            part, _, rest = name.partition(".")
            content[part][rest] = x
        loaded = nodes.InstantID(content, 1280, TOKEN_WIDTH, 512, 16)
        patch = nodes.InstantIDAttentionPatch().patch_attention
        return patch(loaded, faces, image, model, WEIGHT, 0.0, 1.0)[0], image
    loaded = parts["utils"].ipadapter_model_loader(str(file))
    patched, crop = parts["IPAdapterPlus"].ipadapter_execute(
        model.clone(),
        loaded,
        clip,
        insightface=faces if kind.startswith("FaceID") else None,
        image=image,
        weight=WEIGHT,
        weight_faceidv2=1.0,
    )
    return patched, image if crop is None else crop


def encode(file: Path, clip: Any, crop: Tensor) -> Identity:
    found = FaceAnalysis().found
    face = Face(found.bbox, found.kps, found.det_score, found.embedding)
    return encode_identities(formats.load(file), clip, [face], crop, [Source("drawn", "")])[0]


def get_hooks(model: ModelPatcher) -> dict[Any, Any]:
    return model.model_options["transformer_options"]["patches_replace"]["attn2"]


def measure(tensors: Iterable[Tensor]) -> float:
    """Return the size of tensors in megabytes."""
    return sum(x.numel() * x.element_size() for x in tensors) / 1e6

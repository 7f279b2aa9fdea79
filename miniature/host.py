"""Makes the host's stock loaders recognise the miniature's files."""

from __future__ import annotations

from typing import Any, ClassVar

import comfy.clip_vision
import comfy.supported_models
import torch
from comfy.supported_models_base import ClipTarget

from .shapes import ADM_WIDTH, CLIP_VISION_FILE, CONTEXT_WIDTH, HEAD_CHANNELS, clip_vision_config
from .text import MiniatureClipModel, MiniatureTokenizer

PATCHES_KEY = "vision_model.embeddings.patch_embedding.weight"


class Miniature(comfy.supported_models.SDXL):
    """SDXL with a narrow context. Channels and depths come from the file."""

    unet_config: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "use_linear_in_transformer": True,
        "context_dim": CONTEXT_WIDTH,
        "adm_in_channels": ADM_WIDTH,
        "use_temporal_attention": False,
    }
    unet_extra_config: ClassVar[dict[str, int]] = {  # type: ignore[misc]
        "num_heads": -1,
        "num_head_channels": HEAD_CHANNELS,
    }

    def clip_target(self, state_dict: dict[str, torch.Tensor] | None = None) -> ClipTarget:  # noqa: ARG002
        return ClipTarget(MiniatureTokenizer, MiniatureClipModel)


def register() -> None:
    """Puts the miniature before the host's models; further calls change nothing."""
    models = comfy.supported_models.models
    if Miniature in models:
        return
    models.insert(0, Miniature)
    comfy.clip_vision.load_clipvision_from_sd = _recognise_miniature(
        comfy.clip_vision.load_clipvision_from_sd
    )


def _recognise_miniature(load: Any) -> Any:
    """Return a loader that recognises the miniature's encoder by the shape of its patches.

    The host tells CLIP vision models apart by their number of layers."""
    config = clip_vision_config()
    width, side = config["hidden_size"], config["patch_size"]
    shape = (width, config["num_channels"], side, side)

    def load_clipvision_from_sd(
        sd: dict[str, torch.Tensor], prefix: str = "", convert_keys: bool = False
    ) -> comfy.clip_vision.ClipVisionModel | None:
        if PATCHES_KEY not in sd or sd[PATCHES_KEY].shape != shape:
            return load(sd, prefix, convert_keys)
        model = comfy.clip_vision.ClipVisionModel(str(CLIP_VISION_FILE))
        model.load_sd(sd)
        return model

    return load_clipvision_from_sd

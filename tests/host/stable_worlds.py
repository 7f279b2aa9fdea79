"""SD 1.5, SD 2.1 and SDXL as small as they get, random, with the host's own tokenizers."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.model_base
import comfy.sd
import comfy.supported_models
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDTokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.kandinsky5 import Kandinsky5TEModel, Kandinsky5Tokenizer
from comfy.text_encoders.sd2_clip import SD2ClipModel, SD2Tokenizer
from pack.dev.cache import ROOT
from pack.gallery.miniature import NAME, WEIGHTS
from pack.infinite_id.faces.model_pack import load_analysis
from pack.miniature.random_weights import randomise
from PIL import Image

CPU = torch.device("cpu")
KINDS = ("SD 1.5", "SD 2.1", "SDXL")
WIDTHS = {"clip_l": 32, "clip_g": 64, "clip_h": 32}
_TARGETS = {
    "SD 1.5": (SD1Tokenizer, SD1ClipModel, ("clip_l",)),
    "SD 2.1": (SD2Tokenizer, SD2ClipModel, ("clip_h",)),
    "SDXL": (SDXLTokenizer, SDXLClipModel, ("clip_l", "clip_g")),
}
SMALL_UNET = {
    "image_size": 32,
    "model_channels": 64,
    "in_channels": 4,
    "out_channels": 4,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "num_heads": -1,
    "num_head_channels": 32,
    "legacy": False,
}


@dataclass(frozen=True)
class Small:
    """A model and its text encoders.

    Attributes:
        embeddings: the folder in which its prompts look for embeddings.
    """

    model: ModelPatcher
    clip: comfy.sd.CLIP
    embeddings: Path


def make_clip(kind: str, embeddings: Path) -> comfy.sd.CLIP:
    """The kind's text encoders, which all such CLIPs share; tokenizers are slow to make."""
    return _read_from(embeddings, _make_clip(kind))


def make_video_clip(embeddings: Path) -> comfy.sd.CLIP:
    """Kandinsky 5's, a video model: CLIP-L and a Qwen, which reads no embeddings."""
    return _read_from(embeddings, _make_video_clip())


def _read_from(embeddings: Path, clip: comfy.sd.CLIP) -> comfy.sd.CLIP:
    own = clip.clone()
    own.tokenizer = copy(clip.tokenizer)
    for name, part in vars(clip.tokenizer).items():
        if isinstance(part, SDTokenizer) and part.embedding_directory is not None:
            reader = copy(part)
            reader.embedding_directory = [str(embeddings)]
            setattr(own.tokenizer, name, reader)
    return own


@cache
def _make_clip(kind: str) -> comfy.sd.CLIP:
    tokenizer, model, keys = _TARGETS[kind]
    shape = {"num_attention_heads": 2, "num_hidden_layers": 3}
    options: dict[str, Any] = {
        f"{key}_model_config": {**shape, "hidden_size": WIDTHS[key], "intermediate_size": 64}
        for key in keys
    }
    # SD 2's class names no key of its own.
    options["clip_h_model_config"] = options.get("clip_h_model_config", {})
    clip = comfy.sd.CLIP(
        ClipTarget(tokenizer, model),
        embedding_directory=[],
        model_options={**options, "dtype": torch.float32},
    )
    clip.cond_stage_model.load_state_dict(randomise(clip.cond_stage_model, 1))
    return clip


@cache
def _make_video_clip() -> comfy.sd.CLIP:
    clip = comfy.sd.CLIP(
        ClipTarget(Kandinsky5Tokenizer, Kandinsky5TEModel),
        embedding_directory=[],
        model_options={
            "dtype": torch.float32,
            "clip_l_model_config": {
                "num_attention_heads": 2,
                "num_hidden_layers": 3,
                "hidden_size": WIDTHS["clip_l"],
                "intermediate_size": 64,
            },
            "qwen25_7b_model_config": {
                "hidden_size": 48,
                "intermediate_size": 64,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
            },
        },
    )
    del clip.cond_stage_model.qwen25_7b.transformer.visual  # 0.7 billion numbers for pictures
    clip.cond_stage_model.load_state_dict(randomise(clip.cond_stage_model, 1))
    return clip


@cache
def _make_model(kind: str) -> ModelPatcher:
    keys = _TARGETS[kind][2]
    config: dict[str, Any] = {**SMALL_UNET, "context_dim": sum(WIDTHS[key] for key in keys)}
    make: Any = comfy.model_base.BaseModel
    settings: Any = comfy.supported_models.SD15
    kind_of = comfy.model_base.ModelType.EPS
    if kind == "SD 2.1":
        settings, kind_of = comfy.supported_models.SD20, comfy.model_base.ModelType.V_PREDICTION
    if kind == "SDXL":
        make, settings = comfy.model_base.SDXL, comfy.supported_models.SDXL
        config |= {"num_classes": "sequential", "adm_in_channels": WIDTHS["clip_g"] + 6 * 256}
    model = make(settings(config), model_type=kind_of, device=CPU)
    unet = model.diffusion_model.float()
    unet.dtype = torch.float32
    unet.load_state_dict(randomise(unet, 2))
    model.manual_cast_dtype = None
    return ModelPatcher(model, CPU, CPU)


@cache
def make_small(kind: str, embeddings: Path) -> Small:
    """As the host's loaders make them: in inference mode."""
    embeddings.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        return Small(_make_model(kind).clone(), make_clip(kind, embeddings), embeddings)


@cache
def drawn_analysis() -> Any:
    """The nets that find and tell apart the miniature's drawn people."""
    return load_analysis(WEIGHTS / "insightface" / "models" / "miniature", "CPU", 320)


@cache
def drawn_clip_vision() -> comfy.clip_vision.ClipVisionModel:
    """The miniature's CLIP image encoder."""
    return comfy.clip_vision.load(str(WEIGHTS / f"{NAME}-clip-vision.safetensors"))


def drawn_photo(name: str = "face") -> torch.Tensor:
    """One of them, `(1, h, w, 3)`."""
    with Image.open(ROOT / "workflows" / "inputs" / f"{name}.jpg") as picture:
        return torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).float()[None] / 255

"""Models of a graph made ready to be trained with: gradients, copies, the server's memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

import torch
from comfy import model_management
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

from ..attention.blocks import list_transformers
from ..host.models import place_model


@contextmanager
def training() -> Iterator[None]:
    """Gradients inside a node, which the host runs in inference mode; and the host is told."""
    before = getattr(model_management, "in_training", False)
    model_management.in_training = True
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        model_management.in_training = before


def load_for_training(model: ModelPatcher) -> ModelPatcher:
    """A copy of a model in whole on its device, with its patches, all other models put away.

    Its weights were made in inference mode, which PyTorch keeps out of gradients: the copy's are
    ordinary. It runs in bfloat16 where the device can, else in float32; half precision would lose
    small gradients.
    """
    model_management.unload_all_models()
    patcher = _copy_diffusion(model)
    place([patcher])
    return patcher


def load_with_text(model: ModelPatcher, clip: CLIP) -> tuple[ModelPatcher, CLIP]:
    """The same with a copy of its text encoders, which keep their precision."""
    model_management.unload_all_models()
    patcher = _copy_diffusion(model)
    text = clip.clone()
    text.cond_stage_model = copy.deepcopy(clip.cond_stage_model).requires_grad_(False)
    text.patcher = _patch_alike(text.cond_stage_model, clip.patcher)
    place([patcher, text.patcher])
    return patcher, text


def place(patchers: Sequence[ModelPatcher]) -> None:
    """Load models in whole, also where another one has made them give way."""
    model_management.load_models_gpu(patchers, memory_required=1e20, force_full_load=True)


def _copy_diffusion(model: ModelPatcher) -> ModelPatcher:
    device = model.load_device
    dtype = torch.bfloat16 if model_management.should_use_bf16(device) else torch.float32
    network = place_model(_copy_model(model.model), model.offload_device, dtype)
    return _patch_alike(network, model)


def _patch_alike(network: torch.nn.Module, other: ModelPatcher) -> ModelPatcher:
    """A patcher of a copied network with the patches of the first one's."""
    patcher = ModelPatcher(
        network, load_device=other.load_device, offload_device=other.offload_device
    )
    patcher.patches = {name: list(patches) for name, patches in other.patches.items()}
    patcher.object_patches = dict(other.object_patches)
    return patcher


def _copy_model(model: BaseModel) -> BaseModel:
    """The model with a UNet of its own."""
    own = copy.copy(model)
    own._modules = {**model._modules, "diffusion_model": copy.deepcopy(model.diffusion_model)}
    own.current_patcher = None  # type: ignore[assignment]  # as the host begins
    return own


def digest_model(model: ModelPatcher) -> str:
    """SHA-256 that tells models apart: of the text projections, and of which patches there are."""
    whole = sha256(str(sorted((name, len(own)) for name, own in model.patches.items())).encode())
    for _, transformer in list_transformers(model.model.diffusion_model):
        for layer in (transformer.attn2.to_k, transformer.attn2.to_v):
            whole.update(layer.weight.detach().cpu().flatten().view(torch.uint8).numpy())
    return whole.hexdigest()

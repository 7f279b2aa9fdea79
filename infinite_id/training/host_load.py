"""Models of a graph made ready to be trained with: gradients, copies, the server's memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import torch
from comfy import model_management
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QuantizedTensor
from comfy.sd import CLIP, VAE
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

from ..errors import UserError
from ..host.models import place_model


@contextmanager
def training() -> Iterator[None]:
    """Allow gradients inside a node, which the host runs in inference mode, and tell the host."""
    before = getattr(model_management, "in_training", False)
    model_management.in_training = True
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        model_management.in_training = before


def load_for_training(model: ModelPatcher) -> ModelPatcher:
    """Unload all models, copy one with its patches, and load the whole copy on its device.

    The model's weights were made in inference mode, so PyTorch allows no gradients through them.
    The copy's weights are ordinary. It runs in bfloat16 if the device can, else in float32; half
    precision would lose small gradients.

    Raises:
        UserError: if the model's weights are quantised.
    """
    model_management.unload_all_models()
    patcher = _copy_diffusion(model)
    place([patcher])
    return patcher


def load_with_text(model: ModelPatcher, clip: CLIP) -> tuple[ModelPatcher, CLIP]:
    """Do as `load_for_training`, and copy the text encoders too, which keep their precision."""
    model_management.unload_all_models()
    patcher = _copy_diffusion(model)
    text = clip.clone()
    text.cond_stage_model = copy.deepcopy(clip.cond_stage_model).requires_grad_(False)
    text.patcher = _patch_alike(text.cond_stage_model, clip.patcher)
    place([patcher, text.patcher])
    return patcher, text


def place(patchers: Sequence[ModelPatcher]) -> None:
    """Load models in whole, even if another model has displaced them."""
    model_management.load_models_gpu(patchers, memory_required=1e20, force_full_load=True)


def _copy_diffusion(model: ModelPatcher) -> ModelPatcher:
    _check_copyable(model)
    device = model.load_device
    dtype = torch.bfloat16 if model_management.should_use_bf16(device) else torch.float32
    network = place_model(_copy_model(model.model), model.offload_device, dtype)
    return _patch_alike(network, model)


def _check_copyable(model: ModelPatcher) -> None:
    """Raise UserError if the UNet's weights cannot be stored in another dtype, as GGUF's cannot.

    Weights in fp8 can, unless they have scales beside them, as the host's quantised tensors do.
    """
    for weight in model.model.diffusion_model.parameters():
        if not weight.is_floating_point() or isinstance(weight, QuantizedTensor):
            raise UserError(
                "This model's weights are quantised (GGUF, NF4 or the like), and nothing can be "
                "learnt through them. Load an ordinary checkpoint for training; what is learnt "
                "then works with the quantised model, too."
            )


def _patch_alike(network: torch.nn.Module, other: ModelPatcher) -> ModelPatcher:
    """Return a patcher of a copied network, with the patches of the original's patcher."""
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
    """Return the SHA-256 of a model's text projections, patches and sampling, to compare it by.

    Raises:
        UserError: if the model's weights are quantised.
    """
    _check_copyable(model)
    digest = _digest(model, ("attn2.to_k.weight", "attn2.to_v.weight"))
    sampling = model.object_patches.get("model_sampling")
    if sampling is None:
        return digest
    sigmas = getattr(sampling, "sigmas", None)
    numbers = b"" if sigmas is None else sigmas.cpu().numpy().tobytes()
    kinds = ", ".join(kind.__qualname__ for kind in type(sampling).__mro__)
    return sha256(f"{digest} {kinds} ".encode() + numbers).hexdigest()


def digest_text(clip: CLIP) -> str:
    """Return a digest that tells text encoders apart, even if their token tables are the same."""
    return f"{clip.layer_idx} {_digest(clip.patcher, ('k_proj.weight',))}"


def digest_autoencoder(vae: VAE) -> str:
    """SHA-256 of an autoencoder's weights."""
    return _digest(vae.patcher, ("weight",))


def _digest(model: ModelPatcher, ends: tuple[str, ...]) -> str:
    """Return the SHA-256 of the unpatched weights whose names end in `ends`, and of all patches.

    The host merges patches into the weights of loaded models, and keeps the unpatched weights.
    """
    whole = sha256()
    for name, (own, *patches) in sorted(model.get_key_patches().items()):
        weight, _ = own
        for part in _flatten((weight if name.endswith(ends) else None, patches)):
            told = tuple(part.shape) if isinstance(part, Tensor) else part
            whole.update(f"{name} {told} ".encode())
            if isinstance(part, Tensor):
                numbers: Any = part.detach().cpu().flatten().view(torch.uint8).numpy()
                whole.update(numbers)
    return whole.hexdigest()


def _flatten(value: Any) -> Iterator[Tensor | str]:
    """The tensors and numbers of a weight's patches, in order; functions by their names."""
    if isinstance(value, WeightAdapterBase):
        yield value.name
        yield from _flatten(value.weights)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _flatten(part)
    elif isinstance(value, Tensor):
        yield value
    else:
        yield getattr(value, "__qualname__", None) or repr(value)


def encode_picture(vae: VAE, picture: Tensor, model: ModelPatcher) -> Tensor:
    """Latents `(c, h, w)` of a picture `(1, h, w, 3)`, float32 on the CPU.

    Raises:
        UserError: if the autoencoder is that of another kind of model.
    """
    latents = vae.encode(picture)[0].float().cpu()
    channels = model.model.latent_format.latent_channels
    if latents.ndim != 3 or len(latents) != channels:
        raise UserError(
            f"This VAE makes latents of the shape {tuple(latents.shape)} of a picture, and the "
            f"model takes ({channels}, height, width). Connect the VAE of the model's checkpoint."
        )
    return latents


def check_vae(vae: VAE | None) -> None:
    """Raises UserError if there is none."""
    if vae is None:
        raise UserError(
            "There is no VAE at this node's 'vae': the file that it comes from holds none. Take "
            "Load VAE, or a whole checkpoint."
        )

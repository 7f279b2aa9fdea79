"""The miniature's networks as the host's own modules, and the layout of its checkpoint.

A checkpoint is one SDXL checkpoint in fp16:

    model.diffusion_model.*      the UNet
    conditioner.embedders.0.*    the smaller text encoder, transformers' key names
    conditioner.embedders.1.*    the larger one, OpenCLIP's key names
    first_stage_model.*          the autoencoder, a TAESD: 8 pixels to a latent, 4 channels

The CLIP vision model is a file of its own, with transformers' key names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.latent_formats
import comfy.ops
import torch
from comfy.clip_model import CLIPVisionModelProjection
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.taesd.taesd import TAESD
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from .host import Miniature
from .shapes import LATENT_CHANNELS, UNETS, clip_vision_config
from .text import MiniatureClipModel

Tensors = dict[str, torch.Tensor]


def unet(variant: str) -> UNetModel:
    return UNetModel(**UNETS[variant].config(), operations=comfy.ops.disable_weight_init)


def text_encoders() -> MiniatureClipModel:
    return MiniatureClipModel(dtype=torch.float32)


def has_fast_bfloat16() -> bool:
    """Whether the GPU, or the processor, has instructions for bfloat16."""
    return torch.cuda.is_available() or bool(torch.cpu.get_capabilities().get("avx512_bf16"))


@contextmanager
def half_precision() -> Iterator[None]:
    """Run convolutions and matrix products in bfloat16, if the processor has instructions for it.

    With them a CPU is several times as fast as in single precision; without, many times slower.
    """
    if torch.cuda.is_available():
        with torch.autocast("cuda", torch.bfloat16):
            yield
        return
    if not has_fast_bfloat16():
        yield
        return
    with torch.autocast("cpu", torch.bfloat16), _SinglePrecisionAttention():
        yield


class _SinglePrecisionAttention(TorchFunctionMode):
    """Runs attention in single precision: on a CPU its backward pass in bfloat16 is 7x slower."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is not scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            single: list[Any] = [x.float() if isinstance(x, torch.Tensor) else x for x in args]
            return scaled_dot_product_attention(*single, **(kwargs or {}))


def autoencoder() -> TAESD:
    """Works on latents as the UNet sees them; the host's latents are larger by SDXL's factor."""
    model = TAESD(latent_channels=LATENT_CHANNELS)
    torch.nn.init.constant_(model.vae_scale, comfy.latent_formats.SDXL.scale_factor)
    return model


def clip_vision() -> CLIPVisionModelProjection:
    return CLIPVisionModelProjection(
        clip_vision_config(), torch.float32, "cpu", comfy.ops.disable_weight_init
    )


def checkpoint(variant: str, unet: Tensors, text: Tensors, vae: Tensors) -> Tensors:
    """Return the checkpoint's tensors, given the three networks' state dicts."""
    model = Miniature(UNETS[variant].config())
    return as_half(
        model.process_unet_state_dict_for_saving(unet)
        | model.process_clip_state_dict_for_saving(text)
        | model.process_vae_state_dict_for_saving(vae)
    )


def as_half(tensors: Tensors) -> Tensors:
    return {
        name: (x.half() if x.is_floating_point() else x).contiguous() for name, x in tensors.items()
    }

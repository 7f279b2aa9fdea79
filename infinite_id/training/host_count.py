"""What a step takes at SDXL's true size, counted on fake tensors: shapes without storage.

The tensors are on the CPU, because PyTorch computes no gradients on a missing GPU. Attention on the
CPU keeps the same tensors for the gradient as on a GPU, without the matrix of scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.supported_models
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ..adapters.adapter import Adapter, AdapterConfig
from ..adapters.mappers import MapperConfig
from ..attention.blocks import list_layers
from ..count import PeakMemory, count_flops
from .data import Batch
from .host_frozen import HostFrozen
from .objective import Objective

UNET: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "use_linear_in_transformer": True,
    "use_spatial_transformer": True,
    "context_dim": 2048,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
    "num_heads": -1,
    "num_head_channels": 64,
    "use_temporal_attention": False,
    "legacy": False,
}
"""SDXL's UNet, as ComfyUI describes it."""
CLIP_TOKENS = 257
"""Hidden states of CLIP ViT-H/14."""


@dataclass(frozen=True)
class Counts:
    """Bytes, and floating-point operations, of a forward and its gradient.

    Attributes:
        unet: the frozen weights.
        adapter: the trained weights, float32.
        fixed: the part of the peak that does not depend on the number of samples. With many samples
            the peak is inside the backward pass, when some gradients exist.
        sample: activations of one sample at the peak.
        flops: of one sample.
    """

    unet: int
    adapter: int
    fixed: int
    sample: int
    flops: int

    def peak(self, samples: int) -> int:
        """Return the peak of activations and gradients of `samples` samples at once, in bytes."""
        return max(self.adapter, self.fixed + samples * self.sample)


def count(
    mapper: MapperConfig,
    size: int,
    dtype: torch.dtype,
    checkpointing: bool,
    unet: Mapping[str, Any] = UNET,
) -> Counts:
    """Count a step of training. The difference of 16 and 8 samples gives the memory of one.

    Args:
        size: side of the pictures, pixels.
        dtype: of the frozen UNet.
    """
    with FakeTensorMode():
        model = make_model(unet, dtype, torch.device("cpu"))
        adapter = Adapter(AdapterConfig(mapper, list_layers(model.diffusion_model)))
        objective = Objective(adapter, HostFrozen(model, checkpointing))
        few, many = (count_memory(objective, mapper, size, samples) for samples in (8, 16))
        with count_flops() as flops:
            objective(make_batch(mapper, size, 1)).mean().backward()
        return Counts(
            unet=sum(x.nbytes for x in model.diffusion_model.parameters()),
            adapter=sum(x.nbytes for x in objective.parameters()),
            fixed=2 * few - many,
            sample=(many - few) // 8,
            flops=flops.get_total_flops(),
        )


def make_model(
    unet: Mapping[str, Any], dtype: torch.dtype, device: torch.device
) -> comfy.model_base.SDXL:
    """A model of a shape, made by the host; its weights have no values yet."""
    chosen = comfy.supported_models.SDXL({**unet, "dtype": dtype})
    chosen.set_inference_dtype(dtype, None)
    return comfy.model_base.SDXL(chosen, device=device)


def count_memory(objective: Objective, mapper: MapperConfig, size: int, samples: int) -> int:
    """The most bytes that a forward and its gradient make at once."""
    batch = make_batch(mapper, size, samples)
    with PeakMemory() as memory:
        objective(batch).mean().backward()
    objective.zero_grad()
    return memory.peak


def make_batch(mapper: MapperConfig, size: int, samples: int) -> Batch:
    """A batch of zeros."""
    latents = torch.zeros(samples, 4, size // 8, size // 8)
    return Batch(
        latents=latents,
        noise=latents.clone(),
        times=torch.zeros(samples, dtype=torch.long),
        face=torch.zeros(samples, mapper.face_width),
        clip=torch.zeros(samples, CLIP_TOKENS, mapper.clip_width),
        sizes=torch.zeros(samples, 6),
        names=("",) * samples,
    )

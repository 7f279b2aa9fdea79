"""What the host's tests share: a miniature SDXL, random adapter and people, and stock sampling."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import comfy.samplers
import comfy.utils
import folder_paths
import nodes
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_custom_sampler import CFGGuider, RandomNoise, SamplerCustomAdvanced
from pack.infinite_id.adapters.adapter import Adapter, AdapterConfig
from pack.infinite_id.adapters.mappers import MapperConfig
from pack.infinite_id.application import Application
from pack.infinite_id.attention.mixed import Mixing, Style
from pack.infinite_id.host.patch import apply, read_unet
from pack.infinite_id.identities.identity import Identity
from pack.miniature.host import register
from pack.miniature.random_weights import write
from pack.miniature.shapes import UNETS, UNetShape
from torch import Tensor

comfy.utils.set_progress_bar_enabled(False)

# Two levels and four transformer blocks: for the tables that are wide rather than deep.
UNETS["least"] = UNetShape(channels=32, mult=(1, 2), depths=(0, 1), blocks=1)

Conditioning = list[list[Any]]
Latent = dict[str, Tensor]

SEED = 7
IDENTITY_TOKENS = 21

# The four settings of the exactness table. OFF with PHOTO is a single stream, OFF with ADAIN_MEAN
# two of them.
SETTINGS = {
    "off": (Mixing.OFF, Style.PHOTO),
    "mixed": (Mixing.MIXED, Style.PHOTO),
    "mutual": (Mixing.MUTUAL, Style.PHOTO),
    "AdaIN-mean": (Mixing.MIXED, Style.ADAIN_MEAN),
}


def by_day(values: Sequence[Any], daily: Container[Any]) -> list[Any]:
    """Parameters of a test that runs with a few of them by day, and with all at night."""
    return [
        value if value in daily else pytest.param(value, marks=pytest.mark.nightly)
        for value in values
    ]


@dataclass(frozen=True)
class World:
    """A model with prompts, and two people encoded by one adapter that fits it."""

    model: ModelPatcher
    positive: Conditioning
    negative: Conditioning
    middle: Conditioning
    identity: Identity
    other: Identity

    @cached_property
    def unet(self) -> torch.nn.Module:
        return self.model.model.diffusion_model

    def patch(self, weight: float = 1.0, setting: str = "mixed", **changes: Any) -> ModelPatcher:
        """The model with the identity, at any weight: not the node, so without its shortcut."""
        mixing, style = SETTINGS[setting]
        application = Application(self.identity, weight=weight, mixing=mixing, style=style)
        return apply(self.model, replace(application, **changes))

    def sample(self, model: ModelPatcher, **changes: Any) -> Tensor:
        return sample(model, **{"positive": self.positive, "negative": self.negative, **changes})


def load(folder: Path, variant: str, dtype: torch.dtype) -> World:
    """Load the miniature by the stock node from files that are written first, if need be."""
    register()
    folder_paths.add_model_folder_path("checkpoints", str(folder))
    file = folder / f"miniature-{variant}.safetensors"
    if not file.exists():
        write(folder, variant)
    model, clip, _ = nodes.CheckpointLoaderSimple().load_checkpoint(file.name)
    cast(model, dtype)
    positive, negative, middle = (
        nodes.CLIPTextEncode().encode(clip, text)[0]
        for text in ("a photo of a woman on the beach", "", "a man in the snow")
    )
    identity, other = make_identities(make_adapter(model))
    return World(model, positive, negative, middle, identity, other)


def cast(model: ModelPatcher, dtype: torch.dtype) -> None:
    """Store and run the UNet in a dtype, as the host's loader does for a checkpoint of it."""
    model.model.diffusion_model.to(dtype)
    model.model.diffusion_model.dtype = dtype
    model.model.manual_cast_dtype = None


def make_adapter(model: ModelPatcher) -> Adapter:
    layers, width = read_unet(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapter = Adapter(AdapterConfig(MapperConfig(token_width=width), layers))
    return adapter.requires_grad_(False)


def make_identities(adapter: Adapter) -> list[Identity]:
    """Two people; large tokens, so that what the identity does is far above rounding."""
    generator = torch.Generator().manual_seed(1)
    width = adapter.config.mapper.token_width
    drawn = 3 * torch.randn(4, 1, IDENTITY_TOKENS, width, generator=generator)
    return [Identity(drawn[i], drawn[i + 1], adapter) for i in (0, 2)]


def empty(batch: int = 1, height: int = 16, width: int = 16) -> Latent:
    return {"samples": torch.zeros(batch, 4, height, width)}


def painted(batch: int = 1, height: int = 16, width: int = 16) -> Latent:
    """Something to repaint: a latent that is not empty."""
    generator = torch.Generator().manual_seed(2)
    return {"samples": 4 * torch.randn(batch, 4, height, width, generator=generator)}


def sample(
    model: ModelPatcher,
    *,
    positive: Conditioning,
    negative: Conditioning,
    latent: Latent | None = None,
    sampler: str = "euler",
    scheduler: str = "normal",
    steps: int = 4,
    cfg: float = 5.0,
    denoise: float = 1.0,
) -> Tensor:
    """Sample as the stock KSampler node does."""
    latent = empty() if latent is None else latent
    with torch.inference_mode():
        done = nodes.common_ksampler(
            model, SEED, steps, cfg, sampler, scheduler, positive, negative, latent, denoise
        )
    return done[0]["samples"]


def guider(
    model: ModelPatcher, positive: Conditioning, negative: Conditioning, cfg: float = 5.0
) -> comfy.samplers.CFGGuider:
    return CFGGuider.execute(model, positive, negative, cfg).result[0]


def sigmas(model: ModelPatcher, steps: int = 4) -> Tensor:
    return comfy.samplers.calculate_sigmas(
        model.get_model_object("model_sampling"), "normal", steps
    )


def sample_custom(
    guide: comfy.samplers.CFGGuider,
    *,
    sampler: Any = None,
    steps: int = 4,
    latent: Latent | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample as the stock SamplerCustomAdvanced node does: the samples and the last x0."""
    with torch.inference_mode():
        done, denoised = SamplerCustomAdvanced.execute(
            RandomNoise.execute(SEED).result[0],
            guide,
            comfy.samplers.sampler_object("euler") if sampler is None else sampler,
            sigmas(guide.model_patcher, steps),
            empty() if latent is None else latent,
        ).result
    return done["samples"], denoised["samples"]


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The relative difference of two tensors, `|a - b| / |b|`; NaN counts as a difference."""
    assert ours.shape == theirs.shape
    relative = ((ours - theirs).double().norm() / theirs.double().norm()).item()
    return float("inf") if math.isnan(relative) else relative

"""The models and people for the timing. They are random, so that nothing must be downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..infinite_id.adapters.adapter import Adapter, AdapterConfig
from ..infinite_id.adapters.mappers import MapperConfig
from ..infinite_id.host.patch import read_unet
from ..infinite_id.identities.identity import Identity
from ..infinite_id.training.host_count import make_model
from .clock import Clock
from .limit import UNet
from .true_size import CONFIG

TEXT_TOKENS = 77
SIZE_EMBEDDING = 6 * 256  # SDXL is conditioned on six numbers
# All of SDXL's 70 layers at a tenth of their width: here overhead has the largest share.
CONFIGS: dict[str, Mapping[str, Any]] = {
    "sdxl": CONFIG,
    "small": CONFIG | {"model_channels": 32, "num_head_channels": 32},
}


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with its prompts, and an adapter that fits it."""

    name: str
    model: ModelPatcher
    dtype: torch.dtype
    shape: UNet
    head_width: int

    @property
    def kind(self) -> dict[str, str]:
        """The keys under which its figures are recorded."""
        return {"model": self.name, "dtype": str(self.dtype).removeprefix("torch.")}

    @cached_property
    def adapter(self) -> Adapter:
        layers, width = read_unet(self.model)
        adapter = Adapter(AdapterConfig(MapperConfig(token_width=width), layers))
        return adapter.requires_grad_(False).to(self.dtype)

    def draw_identity(self, people: int, tokens: int) -> Identity:
        generator = torch.Generator().manual_seed(people)
        drawn = torch.randn(people + 1, tokens, self.shape.context, generator=generator)
        return Identity(drawn[:people], drawn[people:], self.adapter)

    def draw_prompt(self, seed: int) -> list[list[Any]]:
        generator = torch.Generator().manual_seed(seed)
        pooled = torch.randn(1, self.shape.adm - SIZE_EMBEDDING, generator=generator)
        context: Tensor = torch.randn(1, TEXT_TOKENS, self.shape.context, generator=generator)
        return [[context, {"pooled_output": pooled}]]


def make_subject(name: str, dtype: torch.dtype | None) -> Subject:
    """Make SDXL at true size, or narrow; without a given dtype, in the quicker one."""
    device = comfy.model_management.get_torch_device()
    dtype = dtype or _choose_dtype(device)
    config = CONFIGS[name]
    model = make_model(config, dtype, device)
    fill(model.diffusion_model)
    patcher = ModelPatcher(model, device, device)
    return Subject(name, patcher, dtype, UNet.of(config), config["num_head_channels"])


def _choose_dtype(device: torch.device) -> torch.dtype:
    """Return float16 on a GPU; on a CPU the quicker dtype in one of SDXL's linear layers."""
    if device.type != "cpu":
        return torch.float16
    seconds = {dtype: _time_linear(dtype) for dtype in (torch.bfloat16, torch.float32)}
    said = ", ".join(f"{dtype} {1e3 * s:.1f} ms" for dtype, s in seconds.items())
    print(f"A linear layer of 1280 to 10240 on 1024 tokens: {said}", flush=True)
    return min(seconds, key=seconds.__getitem__)


def _time_linear(dtype: torch.dtype) -> float:
    x, weight = torch.ones(1024, 1280, dtype=dtype), torch.ones(10240, 1280, dtype=dtype)
    clock = Clock(x.device)
    found = []
    for _ in range(5):
        with clock:
            nn.functional.linear(x, weight)
        found.append(clock.cpu_seconds)
    return min(found)


@torch.no_grad()
def fill(unet: nn.Module) -> None:
    """Fill weights uniformly by fan-in, and norms with one: values stay finite and not denormal."""
    torch.manual_seed(0)
    for name, parameter in unet.named_parameters():
        if parameter.ndim > 1:
            bound = parameter[0].numel() ** -0.5
            parameter.uniform_(-bound, bound)
        else:
            parameter.fill_(float(name.endswith("weight")))

"""`plan`: the paper's set-up, a 24 GB card, and the machine that it runs on."""

from __future__ import annotations

import platform
import time
from dataclasses import replace
from functools import cache

import torch
from comfy import model_management

from ..adapters.mappers import MapperConfig
from .host_count import CLIP_TOKENS, Counts, count
from .host_train import DTYPES
from .plan import A100, GB, RTX_4090, Card, Setup, count_photo, describe
from .settings import Run, Settings

_PAPER = Run(steps=1_000_000, batch=64, at_once=4, checkpointing=False)
_SIDE = 4096
"""The side of the matrices whose product is timed; a quarter of it on a CPU."""


def plan(settings: Settings, size: int, photos: int) -> str:
    """What a run takes, in a table and sentences.

    Args:
        settings: of the 24 GB card and of this machine; the paper's has its own [run].
        size: of the pictures, pixels.
        photos: how many are to be prepared.
    """
    counted = cache(count)
    mapper = MapperConfig(**vars(settings.adapter))
    paper = replace(settings, run=_PAPER)
    here = model_management.get_torch_device()
    setups = [
        Setup("the paper's", A100, 16, paper),
        Setup("a 24 GB card", RTX_4090, 1, settings),
        Setup("this machine", _measure(here, settings), _count_cards(here), settings),
    ]
    plans = []
    for setup in setups:
        run = setup.settings.run
        counts: Counts = counted(mapper, size, DTYPES[run.precision], run.checkpointing)
        plans.append((setup, counts))
    photo = count_photo(size, mapper.face_width, (CLIP_TOKENS, mapper.clip_width))
    return (
        f"SDXL at {size} px; memory and operations counted on fake tensors\n\n"
        + describe(plans)
        + f"{photos:,} photos prepared at {size} px take at most {photos * photo / GB:.1f} GB, "
        f"{photo / 1e6:.2f} MB each.\n"
    )


def _measure(device: torch.device, settings: Settings) -> Card:
    dtype = DTYPES[settings.run.precision]
    is_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else platform.processor() or device.type
    memory = model_management.get_total_memory(device)
    return Card.measured(name, memory, time_products(device, dtype))


def _count_cards(device: torch.device) -> int:
    return torch.cuda.device_count() if device.type == "cuda" else 1


def time_products(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Measure the speed of products of large matrices, FLOP/s, for about `seconds`."""
    side = _SIDE if device.type != "cpu" else _SIDE // 4
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        c = a @ b
        c[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best

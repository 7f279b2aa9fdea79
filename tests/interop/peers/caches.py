"""Nodes that take what a forward gave for the next steps as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from pack.infinite_id.savings import Savings
from pack.tests.host.test_stock_nodes import stock
from pack.tests.host.world import load

from .case import Case, Patch, halves, part

ECONOMIES = {
    "": Savings(),
    ", shared latents": Savings(shared=True),
    ", text_every 2": Savings(every=2),
    ", mix_until .5": Savings(until=0.5),
    ", without text_guidance": Savings(guided=False),
}
STEPS = {"steps": 8}


def cache_cases(name: str, patch: Patch, folder: Path) -> Iterator[Case]:
    world = load(folder, "tiny", torch.float32)
    case = Case(name, world, patch, STEPS, is_cache=True)
    for saving, savings in ECONOMIES.items():
        yield replace(case, node=name + saving, savings=savings)
    yield replace(case, node=f"{name}, a mask", mask=halves()[0])


def stock_cases(_: ModuleType, folder: Path) -> Iterator[Case]:
    easy = stock("easycache", "EasyCacheNode", 0.2, 0.15, 0.95, False)
    lazy = stock("easycache", "LazyCacheNode", 0.1, 0.15, 0.95, False)
    yield from cache_cases("EasyCache", easy, folder)
    yield from cache_cases("LazyCache", lazy, folder)


def wave_speed_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    node = part(peer, "fbcache_nodes").ApplyFBCacheOnModel()

    def patch(threshold: float) -> Patch:
        return lambda model: node.patch(model, "diffusion_model", threshold)[0]

    world = load(folder, "tiny", torch.float32)
    yield Case("Apply First Block Cache that never hits", world, patch(1e-9), is_idle=True)
    yield from cache_cases("Apply First Block Cache", patch(0.2), folder)


def deep_cache_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    world = load(folder, "SDXL's blocks", torch.float32)
    node = peer.NODE_CLASS_MAPPINGS["DeepCache"]()
    yield Case("Deep Cache", world, lambda model: node.apply(model, 2, 3, 0, 1000)[0])


def deep_cache_fix_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    world = load(folder, "SDXL's blocks", torch.float32)
    (kind,) = peer.NODE_CLASS_MAPPINGS.values()
    caches = ("Yes", "Yes", "Yes")
    yield Case("Deep Cache", world, lambda model: kind().apply(model, 2, 3, 0, 12, *caches)[0])

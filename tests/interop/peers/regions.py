"""Nodes that give each region of the picture a prompt of its own within one attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.savings import Savings
from pack.tests.host.world import World, empty, load

from .case import Case, Patch, halves, part

Couple = Callable[[ModelPatcher, Any, Any], ModelPatcher]
"""Gives the left half of the picture the first prompt and the right half the second."""


def couple_cases(name: str, couple: Couple, folder: Path) -> Iterator[Case]:
    world = load(folder, "tiny", torch.float32)

    def regions(world: World, right: Any) -> Patch:
        return lambda model: couple(model, world.positive, right)

    same, other = regions(world, world.positive), regions(world, world.middle)
    left, _ = halves()
    yield Case(f"{name}, equal regions", world, same, is_idle=True)
    yield Case(
        f"{name}, equal regions, 2 latents, a mask",
        world,
        same,
        {"latent": empty(2)},
        mask=left,
        is_idle=True,
    )
    yield Case(f"{name}, two prompts", world, other)
    yield Case(f"{name}, two prompts, a mask", world, other, mask=left)
    shared = Savings(shared=True)
    yield Case(f"{name}, two prompts, shared latents", world, other, savings=shared)


def ppm_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    node = part(peer, "attention_couple_ppm").AttentionCouplePPM
    left, right = halves()

    def couple(model: ModelPatcher, first: Any, second: Any) -> ModelPatcher:
        regions = {"base_cond": first, "base_mask": left, "cond_1": second, "mask_1": right}
        return node.execute(model=model, **regions).result[0]

    yield from couple_cases("Attention Couple (PPM)", couple, folder)


def cgem_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    name = next(name for name in peer.NODE_CLASS_MAPPINGS if "AttentionCouple" in name)
    left, right = halves()

    def couple(model: ModelPatcher, _: Any, second: Any) -> ModelPatcher:
        node = peer.NODE_CLASS_MAPPINGS[name]()
        regions = {"base_mask": left, "cond_1": second, "mask_1": right}
        return node.attention_couple_simple(model, **regions)[0]

    yield from couple_cases("Attention Couple", couple, folder)


def a8r8_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    nodes = peer.NODE_CLASS_MAPPINGS

    def couple(model: ModelPatcher, first: Any, second: Any) -> ModelPatcher:
        prompts = zip((first, second), halves(), strict=True)
        regions = [{"cond": cond, "mask": mask, "weight": 1.0} for cond, mask in prompts]
        node = nodes["AttentionCouple"]()
        return node.attention_couple(model, 0.3, first, 128, 128, regions, False)[0]

    yield from couple_cases("Attention Couple", couple, folder)

"""Nodes that add attention to a picture or a guidance to each step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import comfy.clip_vision
import torch
from comfy.model_patcher import ModelPatcher
from pack.bench.adapter_files import write_safetensors
from pack.bench.unet_adapters import make_file
from pack.infinite_id.attention.blocks import list_layers
from pack.miniature.random_weights import write
from pack.tests.host.world import World, empty, load, make_adapter, make_identities
from pack.tests.interop import compare_peers

from .case import Case, part


def wide_world() -> World:
    """SDXL's 70 layers and width of context, by which the adapters' packs tell it."""
    model = compare_peers.make_model()
    prompts = [compare_peers.draw_prompt(seed) for seed in (1, 2, 3)]
    return World(model, *prompts, *make_identities(make_adapter(model)))


def adapter_cases(peer: ModuleType, kind: str, folder: Path) -> Iterator[Case]:
    world = wide_world()
    width, clip_width = compare_peers.TOKEN_WIDTH, compare_peers.CLIP_WIDTH
    file = write_safetensors(
        folder / f"{kind.lower()}.safetensors", make_file(world.unet, kind, width, clip_width)
    )
    clip = comfy.clip_vision.load(str(write(folder, "tiny")["clip_vision"]))
    image = torch.rand(1, 256, 256, 3, generator=torch.Generator().manual_seed(7))

    def patch(model: ModelPatcher) -> ModelPatcher:
        return compare_peers.patch_by_peer(peer, kind, file, model, clip, image)[0]

    yield Case(kind, world, patch, {"steps": 1, "latent": empty(1, 8, 8)})


def ip_adapter_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    return adapter_cases(peer, "FaceID", folder)


def instant_id_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    return adapter_cases(peer, "InstantID", folder)


def pulid_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    """The attention patch, with random projections: its encoders are a gigabyte."""
    world = load(folder, "tiny", torch.float32)
    nodes = part(peer, "pulid")
    generator = torch.Generator().manual_seed(5)
    layers = list_layers(world.unet)
    weights = {
        f"{number}.to_{kind}_ip.weight": torch.randn(width, 64, generator=generator) / 8
        for number, width in enumerate(layers.values())
        for kind in "kv"
    }
    told = {
        "pulid": SimpleNamespace(ip_layers=nodes.To_KV(weights)),
        "weight": 1.0,
        "cond": torch.randn(1, 32, 64, generator=generator),
        "uncond": torch.zeros(1, 32, 64),
        "sigma_start": 999999.0,
        "sigma_end": 0.0,
        "mask": None,
    }
    for method, ortho in (("fidelity", "ortho_v2"), ("style", "ortho"), ("neutral", "")):

        def patch(model: ModelPatcher, ortho: str = ortho) -> ModelPatcher:
            patched = model.clone()
            for number, block in enumerate(layers):
                turned = {name: name == ortho for name in ("ortho", "ortho_v2")}
                kwargs = {**told, **turned, "module_key": str(number)}
                nodes.set_model_patch_replace(patched, kwargs, tuple(block))
            return patched

        yield Case(f"PuLID, {method}", world, patch)


def perturbed_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    world = load(folder, "tiny", torch.float32)
    nodes = {
        name: getattr(part(peer, module), name)()
        for module, name in (
            ("pag_nodes", "PerturbedAttention"),
            ("pag_nodes", "SmoothedEnergyGuidanceAdvanced"),
            ("pag_nodes", "SlidingWindowGuidanceAdvanced"),
            ("nag_nodes", "NormalizedAttentionGuidance"),
            ("pladis_nodes", "Pladis"),
            ("tpg_nodes", "TokenPerturbationGuidance"),
        )
    }
    arguments: dict[str, dict[str, Any]] = {
        "SlidingWindowGuidanceAdvanced": {
            "tile_width": 96,
            "tile_height": 96,
            "tile_overlap": 32,
            "sigma_end": -1.0,
        },
        "NormalizedAttentionGuidance": {"negative": world.middle},
        "TokenPerturbationGuidance": {"unet_block_list": "d0,m0"},
    }
    for name, node in nodes.items():

        def patch(model: ModelPatcher, node: Any = node, name: str = name) -> ModelPatcher:
            torch.manual_seed(0)
            return node.patch(model, **arguments.get(name, {}))[0]

        yield Case(name, world, patch)

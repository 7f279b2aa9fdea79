"""Nodes that give ControlNets, or that cut the batch or the picture into pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.savings import Savings
from pack.tests.host.test_control import draw_hint, make_control_net
from pack.tests.host.world import empty, load, painted

from .case import Case, halves, part


def reference_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    """Reference ControlNets, which rewrite the attention blocks, on the prompts."""
    world = load(folder, "deep", torch.float32)
    reference, main = part(peer, "nodes_reference"), part(peer, "nodes_main")
    hint = reference.ReferencePreprocWrapper(condhint=painted()["samples"])
    for kind in ("reference_attn", "reference_adain", "reference_attn+adain"):
        net = reference.ReferenceControlNetNode.execute(kind, 0.5, 1.0).args[0]
        prompts = main.AdvancedControlNetApply.execute(
            world.positive, world.negative, net, hint, 1.0, 0.0, 1.0
        ).args
        changed = replace(world, positive=prompts[0], negative=prompts[1])
        yield Case(f"Reference ControlNet, {kind}", changed)


def advanced_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    """All that Advanced-ControlNet adds to a net, each alone, and its Reference ControlNets."""
    world = load(folder, "SDXL's blocks", torch.float32)
    make_control_net(folder)
    main, keyframes = part(peer, "nodes_main"), part(peer, "nodes_keyframes")
    net = main.ControlNetLoaderAdvanced.execute("control.safetensors").args[0]
    left, _ = halves()
    by_time = keyframes.TimestepKeyframeInterpolationNode.execute(0.0, 1.0, 1.0, 0.2, "linear", 10)
    by_latent = keyframes.LatentKeyframeBatchedGroupNode.execute([1.0, 0.2])
    soft = part(peer, "nodes_weight").ScaledSoftUniversalWeights.execute(0.8)
    more: dict[str, dict[str, Any]] = {
        "ControlNet": {},
        "with a mask": {"mask_optional": left},
        "soft weights": {"weights_override": soft.args[0]},
        "timestep keyframes": {"timestep_kf": by_time.args[0]},
        "latent keyframes": {"latent_kf_override": by_latent.args[0]},
    }
    for name, options in more.items():
        prompts = main.AdvancedControlNetApply.execute(
            world.positive, world.negative, net, draw_hint(), 0.8, 0.0, 1.0, **options
        ).args
        changed = replace(world, positive=prompts[0], negative=prompts[1])
        yield Case(name, changed, how={"latent": empty(2)})
    yield from reference_cases(peer, folder)


def animate_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    """Evolved Sampling's context windows; motion modules are made for SD 1.5 and beta SDXL."""
    world = load(folder, "tiny", torch.float32)
    contexts, gen2 = part(peer, "nodes_context"), part(peer, "nodes_gen2")
    (windows,) = contexts.StandardStaticContextOptionsNode().create_options(4, 2)
    alone, shared = Savings(), Savings(shared=True)
    for name, options, savings in (
        ("no windows", None, alone),
        ("windows of 4 of 6", windows, alone),
        ("windows of 4 of 6, with shared latents", windows, shared),
    ):

        def patch(model: ModelPatcher, options: Any = options) -> ModelPatcher:
            told = {"model": model, "context_options": options}
            node = gen2.UseEvolvedSamplingNode()
            return node.use_evolved_sampling(beta_schedule="use existing", **told)[0]

        how = {"latent": empty(6, 8, 8)}
        yield Case(f"Use Evolved Sampling, {name}", world, patch, how, savings=savings)


def tiled_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    """Tiles as wide as the mask, which lie beside each other or overlap by half."""
    world = load(folder, "least", torch.float32)
    node = part(peer, "tiled_diffusion").TiledDiffusion()
    left, _ = halves()
    for method in ("MultiDiffusion", "Mixture of Diffusers", "SpotDiffusion"):
        for name, overlap, at_once in (("", 0, 1), (", overlapping", 32, 1), (", at once", 0, 4)):

            def patch(
                model: ModelPatcher,
                method: str = method,
                overlap: int = overlap,
                at_once: int = at_once,
            ) -> ModelPatcher:
                return node.apply(model, method, 64, 128, overlap, at_once)[0]

            case = Case(method + name, world, patch, {"steps": 1})
            masked = replace(case, node=f"{case.node}, a mask", mask=left, is_cut=True)
            shared = f"{masked.node}, shared latents"
            yield from (case, masked, replace(masked, node=shared, savings=Savings(shared=True)))

"""Stock nodes beside Apply Infinite-ID: unchanged at weight 0, on either side.

Token merging is not among them: at SDXL's layers it does nothing.

Each entry is a stock node as a graph would have it. At weight 0 the picture is the one of the
unpatched model with that node; at weight 1 it is another; whether the node comes before or behind
Apply does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import nodes
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.application import Application
from pack.infinite_id.host.patch import apply
from pack.tests.host.world import SETTINGS, World, by_day, difference, empty, painted
from torch import Tensor

ROUNDING = 1e-4
Patch = Callable[[ModelPatcher], ModelPatcher]


def stock(module: str, node: str, *inputs: Any, method: str = "execute") -> Patch:
    """A node of `comfy_extras`; skipped on hosts that do not have it yet."""

    def patch(model: ModelPatcher) -> ModelPatcher:
        nodes_of = pytest.importorskip(f"comfy_extras.nodes_{module}")
        if not hasattr(nodes_of, node):
            pytest.skip(f"this host has no {node}")
        kind = getattr(nodes_of, node)
        output = getattr(kind if method == "execute" else kind(), method)(model, *inputs)
        return output[0] if isinstance(output, tuple) else output.result[0]

    return patch


def change_weights(model: ModelPatcher) -> ModelPatcher:
    """What a LoRA does: differences on the attention's weights."""
    generator = torch.Generator().manual_seed(4)
    patches = {
        f"diffusion_model.{name}": (0.05 * torch.randn(weight.shape, generator=generator),)
        for name, weight in model.model.diffusion_model.named_parameters()
        if name.endswith(("to_q.weight", "to_v.weight"))
    }
    patched = model.clone()
    patched.add_patches({key: ("diff", value) for key, value in patches.items()}, 0.7)
    return patched


def merge(model: ModelPatcher) -> ModelPatcher:
    merging = import_module("comfy_extras.nodes_model_merging")
    return merging.ModelMergeSimple().merge(model, change_weights(model), 0.3)[0]


PATCHES: dict[str, Patch] = {
    "LoRA": change_weights,
    "model merging": merge,
    "FreeU": stock("freelunch", "FreeU", 1.3, 1.4, 0.9, 0.2),
    "FreeU V2": stock("freelunch", "FreeU_V2", 1.3, 1.4, 0.9, 0.2),
    "RescaleCFG": stock("model_advanced", "RescaleCFG", 0.7, method="patch"),
    "v-prediction": stock(
        "model_advanced", "ModelSamplingDiscrete", "v_prediction", False, method="patch"
    ),
    "zero terminal SNR": stock(
        "model_advanced", "ModelSamplingDiscrete", "v_prediction", True, method="patch"
    ),
    "LCM sampling": stock("model_advanced", "ModelSamplingDiscrete", "lcm", False, method="patch"),
    "EDM": stock(
        "model_advanced",
        "ModelSamplingContinuousEDM",
        "edm_playground_v2.5",
        80.0,
        0.002,
        method="patch",
    ),
    "HyperTile": stock("hypertile", "HyperTile", 64, 2, 2, False),
    "deep shrink": stock(
        "model_downscale", "PatchModelAddDownscale", 1, 2.0, 0.0, 0.5, True, "bicubic", "bicubic"
    ),
    "PAG": stock("pag", "PerturbedAttentionGuidance", 2.0),
    "SAG": stock("sag", "SelfAttentionGuidance", 0.5, 2.0),
    "CFG zero star": stock("cfg", "CFGZeroStar"),
    "CFG norm": stock("cfg", "CFGNorm", 0.5),
    "tangential damping": stock("tcfg", "TCFG"),
    "APG": stock("apg", "APG", 0.5, 5.0, -0.1),
    "FreSca": stock("fresca", "FreSca", 1.0, 1.5, 4),
    "Mahiro": stock("mahiro", "Mahiro"),
    "epsilon scaling": stock("eps", "EpsilonScaling", 1.1),
    "NAG": stock("nag", "NAGuidance", 5.0, 0.5, 1.5),
    "EasyCache": stock("easycache", "EasyCacheNode", 3.0, 0.0, 1.0, False),
    "LazyCache": stock("easycache", "LazyCacheNode", 3.0, 0.0, 1.0, False),
}
SPECIAL: dict[str, dict[str, Any]] = {
    "HyperTile": {"latent": empty(1, 32, 32), "steps": 2},
    "deep shrink": {"latent": empty(1, 32, 32), "steps": 3},
}


def draw(world: World, model: ModelPatcher, **how: Any) -> Tensor:
    torch.manual_seed(0)  # HyperTile draws from the global generator
    return world.sample(model, **how)


def put_on(model: ModelPatcher, world: World, weight: float, setting: str) -> ModelPatcher:
    mixing, style = SETTINGS[setting]
    return apply(model, Application(world.identity, weight=weight, mixing=mixing, style=style))


@pytest.mark.parametrize("setting", by_day(["off", "mixed", "AdaIN-mean"], ["AdaIN-mean"]))
@pytest.mark.parametrize("name", PATCHES)
def test_model_patches(tiny: World, name: str, setting: str) -> None:
    patch, how = PATCHES[name], SPECIAL.get(name, {})
    plain = draw(tiny, patch(tiny.model), **how)
    assert difference(plain, draw(tiny, tiny.model, **how)) > ROUNDING, "the node does nothing"

    def both(weight: float, first: bool) -> Tensor:
        if first:
            return draw(tiny, put_on(patch(tiny.model), tiny, weight, setting), **how)
        return draw(tiny, patch(put_on(tiny.model, tiny, weight, setting)), **how)

    assert difference(both(0.0, first=True), plain) < ROUNDING
    assert difference(both(0.0, first=False), plain) < ROUNDING
    person = both(1.0, first=True)
    assert difference(person, plain) > 10 * ROUNDING
    assert difference(both(1.0, first=False), person) < ROUNDING


# --- Conditioning --------------------------------------------------------------------------------


def average(world: World) -> Any:
    return nodes.ConditioningAverage().addWeighted(world.positive, world.middle, 0.5)[0]


def concat(world: World) -> Any:
    return nodes.ConditioningConcat().concat(world.positive, world.middle)[0]


def combine(world: World) -> Any:
    return nodes.ConditioningCombine().combine(world.positive, world.middle)[0]


def take_turns(world: World) -> Any:
    set_range = nodes.ConditioningSetTimestepRange().set_range
    early = set_range(world.positive, 0.0, 0.5)[0]
    late = set_range(world.middle, 0.5, 1.0)[0]
    return nodes.ConditioningCombine().combine(early, late)[0]


def mask_out(world: World) -> Any:
    mask = torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    half = nodes.ConditioningSetMask().append(world.middle, mask, "default", 1.0)[0]
    return nodes.ConditioningCombine().combine(world.positive, half)[0]


@pytest.mark.parametrize("setting", ["off", "mixed", "AdaIN-mean"])
@pytest.mark.parametrize("prompt", [average, concat, combine, take_turns, mask_out])
def test_prompts(tiny: World, prompt: Callable[[World], Any], setting: str) -> None:
    positive = prompt(tiny)
    plain = tiny.sample(tiny.model, positive=positive)
    assert difference(plain, tiny.sample(tiny.model)) > ROUNDING
    assert difference(tiny.sample(tiny.patch(0.0, setting), positive=positive), plain) < ROUNDING
    person = tiny.sample(tiny.patch(1.0, setting), positive=positive)
    assert difference(person, plain) > 10 * ROUNDING


# --- Ways to sample ------------------------------------------------------------------------------


def sample_in_two_parts(world: World, model: ModelPatcher) -> Tensor:
    """KSampler (Advanced) twice: the first leaves noise, the second adds none."""
    node = nodes.KSamplerAdvanced()
    common = (7, 6, 5.0, "euler", "normal", world.positive, world.negative)
    with torch.inference_mode():
        first = node.sample(model, "enable", *common, empty(), 0, 3, "enable")[0]
        return node.sample(model, "disable", *common, first, 3, 6, "disable")[0]["samples"]


def sample_and_enlarge(world: World, model: ModelPatcher) -> Tensor:
    small = {"samples": world.sample(model, steps=3)}
    large = nodes.LatentUpscale().upscale(small, "bilinear", 192, 192, "disabled")[0]
    return world.sample(model, latent=large, denoise=0.6, steps=3)


def sample_one_of_a_batch(world: World, model: ModelPatcher) -> Tensor:
    picked = nodes.LatentFromBatch().frombatch(empty(4), 2, 1)[0]
    return world.sample(model, latent=picked)


def sample_with_a_soft_mask(world: World, model: ModelPatcher) -> Tensor:
    latent = painted()
    latent["noise_mask"] = torch.linspace(0, 1, 16).expand(1, 1, 16, 16).contiguous()
    differential = stock("differential_diffusion", "DifferentialDiffusion")
    return world.sample(differential(model), latent=latent)


WAYS = [sample_in_two_parts, sample_and_enlarge, sample_one_of_a_batch, sample_with_a_soft_mask]


@pytest.mark.parametrize("setting", ["off", "mixed", "AdaIN-mean"])
@pytest.mark.parametrize("way", WAYS)
def test_ways_to_sample(
    tiny: World, way: Callable[[World, ModelPatcher], Tensor], setting: str
) -> None:
    plain = way(tiny, tiny.model)
    assert difference(way(tiny, tiny.patch(0.0, setting)), plain) < ROUNDING
    assert difference(way(tiny, tiny.patch(1.0, setting)), plain) > 10 * ROUNDING

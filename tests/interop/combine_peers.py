"""Other packs' nodes before and behind Apply Infinite-ID, in one process, on a small UNet.

Not a test: it runs other packs' code, of which nothing is kept here. Give checkouts, any of them:

    COMFYUI_PATH=... IPADAPTER_PLUS_PATH=... INSTANTID_PATH=... PULID_PATH=... \\
        PERTURBED_ATTENTION_PATH=... ADVANCED_CONTROLNET_PATH=... ANIMATEDIFF_PATH=... \\
        python -P tests/interop/combine_peers.py

It prints a table and keeps it in `combined.md`, which `python -m dev compatibility` takes over.
PuLID imports facexlib, timm and ftfy. Columns are relative differences of samples:

    weight 0       with the identity at weight 0 against theirs alone, the larger of both orders
    weight 1       with the identity at weight 1 against theirs alone
    orders         theirs before Apply against theirs behind it
    untouched      whether their model is what it was, and still gives the same bits
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))  # the host, and the pack as `pack`

import comfy.clip_vision  # noqa: E402
import comfy.model_management  # noqa: E402
import torch  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from comfyui_version import __version__ as host_version  # noqa: E402
from pack.infinite_id.attention.blocks import list_layers  # noqa: E402
from pack.infinite_id.economy import Economy  # noqa: E402
from pack.infinite_id.host.patch import economise  # noqa: E402
from pack.miniature.host import register  # noqa: E402
from pack.miniature.random_weights import write  # noqa: E402
from pack.tests.host.test_control import draw_hint, make_control_net  # noqa: E402
from pack.tests.host.unet_adapters import make_file  # noqa: E402
from pack.tests.host.world import (  # noqa: E402
    World,
    difference,
    empty,
    load,
    make_adapter,
    make_identities,
    painted,
)
from pack.tests.interop import compare_peers  # noqa: E402
from pack.tests.unit.adapter_files import write_safetensors  # noqa: E402
from torch import Tensor  # noqa: E402

Patch = Callable[[ModelPatcher], ModelPatcher]
SETTINGS = ("off", "mixed", "AdaIN-mean")
SAME = 1e-4
OUTPUT = Path(__file__).with_name("combined.md")
COLUMNS = ("pack", "node", "weight 0", "weight 1", "orders", "untouched", "verdict")


@dataclass(frozen=True)
class Case:
    """A peer's node, as a patch on a model and, for ControlNets, on the prompts."""

    node: str
    world: World
    patch: Patch
    how: dict[str, Any] = field(default_factory=dict)  # to sample


def part(peer: ModuleType, name: str) -> Any:
    """A module of a pack by the end of its name."""
    return next(
        m for n, m in sys.modules.items() if n.startswith(peer.__name__) and n.endswith(name)
    )


# --- The packs -----------------------------------------------------------------------------------


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
        yield Case(f"Reference ControlNet, {kind}", changed, lambda model: model)


def advanced_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    """All that Advanced-ControlNet adds to a net, each alone, and its Reference ControlNets."""
    world = load(folder, "SDXL's blocks", torch.float32)
    make_control_net(folder)
    main, keyframes = part(peer, "nodes_main"), part(peer, "nodes_keyframes")
    net = main.ControlNetLoaderAdvanced.execute("control.safetensors").args[0]
    left = torch.zeros(1, 128, 128)
    left[..., :64] = 1
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
        yield Case(name, changed, lambda model: model, {"latent": empty(2)})
    # Both streams' rows are numbered as latents, so the text stream's have no keyframes of theirs.
    shared = Economy(shared=True)
    yield Case(
        "latent keyframes, with shared latents",
        changed,
        lambda model: economise(model, shared),
        {"latent": empty(2)},
    )
    yield from reference_cases(peer, folder)


def animate_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    """Evolved Sampling's context windows; motion modules are made for SD 1.5 and beta SDXL."""
    world = load(folder, "tiny", torch.float32)
    contexts, gen2 = part(peer, "nodes_context"), part(peer, "nodes_gen2")
    (windows,) = contexts.StandardStaticContextOptionsNode().create_options(4, 2)
    alone, shared = Economy(), Economy(shared=True)
    for name, options, economy in (
        ("no windows", None, alone),
        ("windows of 4 of 6", windows, alone),
        ("windows of 4 of 6, with shared latents", windows, shared),
    ):

        def patch(
            model: ModelPatcher, options: Any = options, economy: Economy = economy
        ) -> ModelPatcher:
            node = gen2.UseEvolvedSamplingNode()
            told = {"model": economise(model, economy), "context_options": options}
            return node.use_evolved_sampling(beta_schedule="use existing", **told)[0]

        yield Case(f"Use Evolved Sampling, {name}", world, patch, {"latent": empty(6, 8, 8)})


PEERS: dict[str, Callable[[ModuleType, Path], Iterator[Case]]] = {
    "IPADAPTER_PLUS_PATH": ip_adapter_cases,
    "INSTANTID_PATH": instant_id_cases,
    "PULID_PATH": pulid_cases,
    "PERTURBED_ATTENTION_PATH": perturbed_cases,
    "ADVANCED_CONTROLNET_PATH": advanced_cases,
    "ANIMATEDIFF_PATH": animate_cases,
}


# --- What must hold ------------------------------------------------------------------------------


def draw(case: Case, model: ModelPatcher) -> Tensor:
    torch.manual_seed(0)
    return case.world.sample(model, **{"steps": 2, **case.how})


def put_on(case: Case, model: ModelPatcher, weight: float, setting: str) -> ModelPatcher:
    return replace(case.world, model=model).patch(weight, setting)


def outline(value: Any) -> Any:
    """Containers and callable objects by what they hold, everything else by identity."""
    if isinstance(value, dict):
        return {key: outline(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [outline(one) for one in value]
    return outline(vars(value)) if hasattr(value, "callback") else id(value)


def describe(model: ModelPatcher) -> Any:
    parts = (model.model_options, model.wrappers, model.callbacks, model.patches)
    return outline((*parts, model.object_patches))


def patch(case: Case, model: ModelPatcher) -> ModelPatcher:
    """Patches that keep the model's own functions must not find those of an earlier clone."""
    comfy.model_management.unload_all_models()
    return case.patch(model)


def combine(case: Case) -> tuple[str, ...]:
    theirs = patch(case, case.world.model)
    before = describe(theirs)
    try:
        alone = draw(case, theirs)
    except Exception as error:
        return "", "", "", "", f"cannot be told: fails here by itself: {error}"
    zero, one, orders = 0.0, float("inf"), 0.0
    for setting in SETTINGS:
        pictures = {
            (weight, first): draw(
                case,
                put_on(case, theirs, weight, setting)
                if first
                else patch(case, put_on(case, case.world.model, weight, setting)),
            )
            for weight in (0.0, 1.0)
            for first in (True, False)
        }
        zero = max(zero, *(difference(pictures[0.0, first], alone) for first in (True, False)))
        one = min(one, *(difference(pictures[1.0, first], alone) for first in (True, False)))
        orders = max(orders, difference(pictures[1.0, False], pictures[1.0, True]))
    untouched = describe(theirs) == before and torch.equal(draw(case, theirs), alone)
    good = zero < SAME and one > 10 * SAME and orders < SAME and untouched
    figures = (f"{zero:.1e}", f"{one:.1e}", f"{orders:.1e}", "yes" if untouched else "no")
    return (*figures, "works" if good else "**differs**")


def version_of(path: Path) -> str:
    lines = (path / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version"))


def combine_all(variable: str, folder: Path) -> Iterator[str]:
    """A row for each node of a pack; what cannot be loaded or fails is told in its row."""
    path = Path(os.environ[variable])
    start = f"| {path.name} {version_of(path)} |"
    try:
        for case in PEERS[variable](compare_peers.import_peer(path), folder):
            try:
                cells = combine(case)
            except Exception as error:
                cells = ("", "", "", "", f"**fails**: {error}")
            yield f"{start} {case.node} | {' | '.join(cells)} |"
    except Exception as error:
        yield f"{start} | | | | | **cannot be loaded**: {error} |"


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    register()
    lines = [f"ComfyUI {host_version}\n", f"| {' | '.join(COLUMNS)} |", "|---" * 7 + "|"]
    with tempfile.TemporaryDirectory() as name:
        for variable in PEERS:
            if variable not in os.environ:
                print(f"{variable} is not set")
                continue
            for row in combine_all(variable, Path(name)):
                lines.append(row)
                print(row, flush=True)
                OUTPUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

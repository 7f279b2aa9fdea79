"""Other packs' nodes before and behind Apply Infinite-ID, in one process, on a small UNet.

Not a test: it runs other packs' code, of which nothing is kept here. Give checkouts, any of them:

    COMFYUI_PATH=... IPADAPTER_PLUS_PATH=... INSTANTID_PATH=... PULID_PATH=... \\
        PERTURBED_ATTENTION_PATH=... ADVANCED_CONTROLNET_PATH=... ANIMATEDIFF_PATH=... \\
        TILED_DIFFUSION_PATH=... PPM_PATH=... CGEM156_PATH=... A8R8_PATH=... WAVESPEED_PATH=... \\
        DEEPCACHE_PATH=... DEEPCACHE_FIX_PATH=... RES4LYF_PATH=... GGUF_PATH=... \\
        python tests/interop/combine_peers.py

It prints a table and keeps it in `combined.md`, which `python -m dev compatibility` takes over.
Variables named behind the command choose some of these packs.
PuLID imports facexlib, timm and ftfy, RES4LYF pywavelets, GGUF gguf. What the packs' nodes are made
to do is in `peers/`. Columns are relative differences of samples, the worst over the settings of
mixed_attention and style:

    weight 0       with the identity at weight 0 against theirs alone, the larger of both orders
    weight 1       with the identity at weight 1 against theirs alone
    orders         theirs before Apply against theirs behind it
    against ours   with the identity at weight 1 against ours alone, where theirs changes nothing as
                   it is used, or is a cache: that may cost what savings do, or twice what it costs
                   without us, as it hits at other steps
    beyond mask    theirs alone, without mixing, in tiles that the person's mask does not reach
    untouched      whether their model is what it was, and still gives the same bits

A row works where all of these are rounding, but for "weight 1", and for "weight 0" with a saving
that is not exact. Behind its verdict is what the log says.
"""

from __future__ import annotations

import asyncio
import logging
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))  # the host, and the pack as `pack`

import comfy.model_management  # noqa: E402
import torch  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from comfyui_version import __version__ as host_version  # noqa: E402
from pack.bench.peer_pack import import_peer  # noqa: E402
from pack.miniature.host import register  # noqa: E402
from pack.tests.host.world import difference  # noqa: E402
from pack.tests.interop.peers import (  # noqa: E402
    attention,
    caches,
    pieces,
    quantised,
    regions,
    samplers,
)
from pack.tests.interop.peers.case import NEAR, SAME, Case  # noqa: E402
from server import PromptServer  # noqa: E402
from torch import Tensor  # noqa: E402

SETTINGS = ("off", "mixed", "AdaIN-mean")
OUTPUT = Path(__file__).with_name("combined.md")
COLUMNS = (
    "pack",
    "node",
    "weight 0",
    "weight 1",
    "orders",
    "against ours",
    "beyond mask",
    "untouched",
    "verdict",
)
PEERS: dict[str, Callable[[ModuleType, Path], Iterator[Case]]] = {
    "IPADAPTER_PLUS_PATH": attention.ip_adapter_cases,
    "INSTANTID_PATH": attention.instant_id_cases,
    "PULID_PATH": attention.pulid_cases,
    "PERTURBED_ATTENTION_PATH": attention.perturbed_cases,
    "ADVANCED_CONTROLNET_PATH": pieces.advanced_cases,
    "ANIMATEDIFF_PATH": pieces.animate_cases,
    "TILED_DIFFUSION_PATH": pieces.tiled_cases,
    "PPM_PATH": regions.ppm_cases,
    "CGEM156_PATH": regions.cgem_cases,
    "A8R8_PATH": regions.a8r8_cases,
    "COMFYUI_PATH": caches.stock_cases,
    "WAVESPEED_PATH": caches.wave_speed_cases,
    "DEEPCACHE_PATH": caches.deep_cache_cases,
    "DEEPCACHE_FIX_PATH": caches.deep_cache_fix_cases,
    "RES4LYF_PATH": samplers.res4lyf_cases,
    "GGUF_PATH": quantised.gguf_cases,
}


# --- What must hold ------------------------------------------------------------------------------


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


@dataclass
class Figures:
    """What a case gives, the worst of all settings; None where there is nothing to compare."""

    zero: float = 0.0
    one: float = float("inf")
    orders: float = 0.0
    ours: float | None = None
    beyond: float | None = None

    def cells(self) -> tuple[str, ...]:
        figures = (self.zero, self.one, self.orders, self.ours, self.beyond)
        return tuple("" if figure is None else f"{figure:.1e}" for figure in figures)


def combine(case: Case) -> tuple[str, ...]:
    """The cells of a case, but for the pack and the node."""
    theirs = patch(case, case.world.model)
    try:
        alone = case.draw(theirs)
    except Exception as error:
        return *[""] * 6, f"cannot be told: fails here by itself: {error}"
    before = describe(theirs)
    figures = Figures()
    for setting in SETTINGS:
        measure(case, theirs, alone, setting, figures)
    untouched = describe(theirs) == before and torch.equal(case.draw(theirs), alone)
    cost = SAME
    if case.is_cache:
        cost = max(NEAR, 2 * difference(alone, case.draw(case.world.model)))
    good = (
        untouched
        and figures.zero < case.tolerance
        and figures.one > 10 * SAME
        and max(figures.orders, figures.beyond or 0.0) < SAME
        and (figures.ours or 0.0) < cost
    )
    verdict = "works" if good else "**differs**"
    return (*figures.cells(), "yes" if untouched else "no", verdict)


def measure(
    case: Case, theirs: ModelPatcher, alone: Tensor, setting: str, figures: Figures
) -> None:
    """Add one setting of mixed_attention and style to the figures."""

    def put_on(weight: float) -> tuple[Tensor, Tensor]:
        before = case.put_on(theirs, weight, setting)
        drawn = case.draw(before)
        behind = patch(case, case.put_on(case.world.model, weight, setting))
        return drawn, case.draw(behind)

    zeros, ones = put_on(0.0), put_on(1.0)
    figures.zero = max(figures.zero, *(difference(picture, alone) for picture in zeros))
    figures.one = min(figures.one, *(difference(picture, alone) for picture in ones))
    figures.orders = max(figures.orders, difference(*ones))
    if case.is_idle or case.is_cache:
        ours = case.draw(case.put_on(case.world.model, 1.0, setting))
        figures.ours = max(figures.ours or 0.0, difference(ones[0], ours))
    if case.is_cut and setting == "off":
        columns = slice(alone.shape[-1] * 3 // 4, None)
        figures.beyond = difference(ones[0][..., columns], alone[..., columns])


# --- The table -----------------------------------------------------------------------------------


@contextmanager
def listen() -> Iterator[dict[str, None]]:
    """What the pack warns of, each sentence once."""
    said: dict[str, None] = {}
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.update({record.getMessage(): None})  # type: ignore[method-assign]
    logging.getLogger("pack").addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger("pack").removeHandler(handler)


def judge(case: Case) -> tuple[str, ...]:
    """The cells of a case that may be refused: in the pack's own words, or it fails."""
    with listen() as said:
        try:
            cells = combine(case)
        except Exception as error:
            words = " ".join(str(error).split())
            verdict = "refused" if "Infinite-ID" in words else f"**fails**: {type(error).__name__}"
            cells = (*[""] * 6, f"{verdict}: {words}")
    return (*cells[:-1], ". The log: ".join((cells[-1], *said)))


def version_of(path: Path) -> str:
    """The version that a pack gives itself, and its commit."""
    project = path / "pyproject.toml"
    lines = project.read_text(encoding="utf-8").splitlines() if project.exists() else []
    versions = [line.split('"')[1] for line in lines if line.startswith("version")]
    command = ["git", "-C", str(path), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return " ".join([*versions, f"({commit})"])


def load_peer(variable: str, path: Path) -> ModuleType:
    if variable == "COMFYUI_PATH":
        return ModuleType("the host's own nodes")
    if variable == "CGEM156_PATH":  # which imports itself by the folder that it lies in
        folder = ModuleType("custom_nodes")
        folder.__path__ = [str(path.parent)]
        sys.modules["custom_nodes"] = folder
    return import_peer(path)


def combine_all(variable: str, folder: Path) -> Iterator[str]:
    """A row for each node of a pack; what cannot be loaded or fails is told in its row."""
    path = Path(os.environ[variable])
    name = "ComfyUI" if variable == "COMFYUI_PATH" else f"{path.name} {version_of(path)}"
    try:
        for case in PEERS[variable](load_peer(variable, path), folder):
            yield f"| {name} | {case.node} | {' | '.join(judge(case))} |"
    except Exception as error:
        yield f"| {name} |{' |' * (len(COLUMNS) - 2)} **cannot be loaded**: {error} |"


def keep(rows: list[str]) -> None:
    head = (f"ComfyUI {host_version}\n", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|")
    OUTPUT.write_text("\n".join((*head, *rows)) + "\n", encoding="utf-8")


@torch.inference_mode()
def main(chosen: list[str]) -> None:
    torch.set_num_threads(1)
    register()
    PromptServer(asyncio.new_event_loop())  # packs add routes to it
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for variable in chosen or PEERS:
            if variable not in os.environ:
                print(f"{variable} is not set")
                continue
            for row in combine_all(variable, Path(name)):
                rows.append(row)
                print(row, flush=True)
                keep(rows)


if __name__ == "__main__":
    main(sys.argv[1:])

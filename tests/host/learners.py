"""The nodes that learn words, run as the host runs them, on models as small as they get."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.utils
import folder_paths
import latent_preview
import pytest
import torch
from pack.infinite_id import launch
from pack.infinite_id.training.watch import Signals
from pack.miniature.host import register
from pack.nodes import folders
from pack.nodes.learn_embedding import LearnEmbedding
from pack.nodes.learn_staged import LearnStagedIdentity
from pack.tests.host.stable_worlds import Small, drawn_analysis, drawn_photo, make_small
from pack.tests.host.test_training_nodes import Page
from server import PromptServer

STEPS = 8
COMMON = {
    "images": drawn_photo(),
    "name": "people/anna",
    "if_taken": "stop",
    "steps": STEPS,
    "learning_rate": 1e-3,
    "training_seed": 0,
    "size": 128,
    "gradient_checkpointing": True,
    "preview_every": 4,
}


@dataclass(frozen=True)
class Method:
    """A node, its inputs beside the common ones, and the folder of what it writes."""

    node: Any
    inputs: Callable[[], dict[str, Any]]
    folder: str


EMBEDDING = Method(
    LearnEmbedding,
    lambda: {
        "prompt": "a photo of *, smiling",
        "landing": "joint",
        "loss": "two phases",
        "masked": True,
        "go_on_from": "[None]",
        "face_analysis": drawn_analysis(),
    },
    folders.EMBEDDINGS,
)
STAGED = Method(
    LearnStagedIdentity,
    lambda: {
        "prompt": "a photo of the face of V*",
        "noun": "person",
        "attention": 0.003,
        "stages": 5,
        "split": True,
    },
    folders.STAGED,
)


def use_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Page:
    """A page that watches both nodes; what they write goes below `tmp_path`."""
    own = Page()
    monkeypatch.setattr(PromptServer, "instance", own, raising=False)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", own.update)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_ENABLED", True)
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    monkeypatch.setattr(
        latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB
    )
    hidden = SimpleNamespace(unique_id="7", extra_pnginfo=None, prompt=None)
    for method in (EMBEDDING, STAGED):
        monkeypatch.setattr(method.node, "hidden", hidden, raising=False)
    known, endings = folder_paths.folder_names_and_paths, folder_paths.supported_pt_extensions
    for name in (folders.EMBEDDINGS, folders.MAPPERS, folders.STAGED):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setitem(known, name, ([str(tmp_path / name)], endings))
    parsers = ([str(tmp_path / folders.FACE_PARSERS)], {".onnx"})
    monkeypatch.setitem(known, folders.FACE_PARSERS, parsers)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return own


def use_models(tmp_path: Path, kind: str = "SDXL") -> Small:
    """Models whose prompts look for embeddings where the nodes write them."""
    return make_small(kind, tmp_path / folders.EMBEDDINGS)


def make_learn(method: Method, small: Small, vae: Any) -> Callable[..., Any]:
    """Return a function that runs a method's node, with other inputs than its usual ones."""

    def run(**changes: Any) -> Any:
        models = {"model": small.model, "clip": small.clip, "vae": vae}
        inputs = {**models, **COMMON, **method.inputs(), **changes}
        with torch.inference_mode():
            return method.node.execute(**inputs).result

    return run


def use_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let commands run on this host, with the miniature; what they write goes below `tmp_path`."""
    register()
    monkeypatch.setattr(launch, "use_host", lambda _: None)
    known = folder_paths.folder_names_and_paths
    for kind in (folders.EMBEDDINGS, folders.MAPPERS, folders.STAGED):
        (tmp_path / kind).mkdir()
        monkeypatch.setitem(known, kind, ([str(tmp_path / kind)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})


class _Stop(Signals):
    def note(self, step: int, loss: float) -> None:
        del loss
        self.asked = step == 2


@contextmanager
def stop_at_the_third_step() -> Iterator[Signals]:
    """As `watch_signals`, where the user presses Ctrl-C in the third step."""
    yield _Stop()

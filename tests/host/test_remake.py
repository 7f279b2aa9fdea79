"""The command that makes the miniature from seeds, by one step of each stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import comfy.clip_vision
import comfy.sd
import pytest
from pack.infinite_id.adapters import formats
from pack.infinite_id.faces.model_pack import load_analysis
from pack.infinite_id.host.patch import read_unet
from pack.miniature.host import register
from pack.miniature.shapes import FOLDER, WEIGHTS
from pack.miniature.training import clip_vision
from pack.miniature.training.command import STAGES
from pack.miniature.training.publish import ADAPTERS as ADAPTER_FILES
from pack.miniature.training.publish import FILES, NAME, WITH_TEXT
from safetensors import safe_open

ADAPTERS = ("photos", "prepared", "adapter", "adapter_with_text")
NETS = [name for name in STAGES if name not in (*ADAPTERS, "publish")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapters' photos need a net that finds faces, so theirs are the published nets."""
    folder = tmp_path_factory.mktemp("remake")
    nets, adapters = folder / "nets", folder / "adapters"
    run(nets, NETS, folder / "weights")
    run(adapters, ["unpack", "pictures", *ADAPTERS], WEIGHTS)
    for path in adapters.glob("miniature-adapter*.safetensors"):
        path.rename(nets / path.name)
    run(nets, ["publish"], folder / "weights")
    return folder / "weights"


def run(work: Path, stages: Sequence[str], weights: Path) -> None:
    command = [sys.executable, "-m", "miniature.train", "--host", os.environ["COMFYUI_PATH"]]
    counts = ["--samples", "1", "--workers", "1", "--pictures", "64"]
    options = [*counts, "--work", str(work), "--to", str(weights)]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    words = [*command, *options, "--stage", *stages]
    subprocess.run(words, env=environment, check=True, timeout=900)


def test_every_stage_runs_and_the_host_loads_what_it_made(made: Path) -> None:
    assert {path.relative_to(made).as_posix() for path in made.rglob("*.*")} == set(FILES.values())
    register()
    checkpoint = str(made / f"{NAME}.safetensors")
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(checkpoint)
    assert model is not None
    assert clip is not None
    assert vae is not None
    vision = comfy.clip_vision.load(str(made / f"{NAME}-clip-vision.safetensors"))
    assert vision.image_size == 224
    load_analysis(made / "insightface" / "models" / "miniature", "CPU", 256)


def test_the_adapters_fit_their_model_and_say_what_they_were_made_of(made: Path) -> None:
    """They come from the trainer's own command."""
    register()
    model, *_ = comfy.sd.load_checkpoint_guess_config(str(WEIGHTS / f"{NAME}.safetensors"))
    layers, width = read_unet(model)
    for name, file in ADAPTER_FILES.items():
        adapter = formats.load(made / file)
        assert adapter.config.layers == layers
        assert adapter.config.mapper.token_width == width
        with safe_open(made / file, framework="pt") as opened:
            told = json.loads(opened.metadata()["provenance"])
        assert told["step"] == 1
        assert told["objective.text"] is (name == WITH_TEXT)
        assert told["clip_vision"] == clip_vision.FILE

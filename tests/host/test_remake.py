"""The command that makes the miniature from seeds, by one step of each stage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import comfy.clip_vision
import comfy.sd
import pytest
from pack.infinite_id.adapters import formats
from pack.infinite_id.faces.face import load_analysis
from pack.infinite_id.host.patch import read_unet
from pack.miniature.host import register
from pack.miniature.shapes import FOLDER
from pack.miniature.training.publish import FILES, NAME


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remake")
    command = [sys.executable, "-m", "miniature.train", "--host", os.environ["COMFYUI_PATH"]]
    options = ["--samples", "1", "--pictures", "64", "--work", str(folder / "work")]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    subprocess.run(
        [*command, *options, "--to", str(folder / "weights")],
        env=environment,
        check=True,
        timeout=900,
    )
    return folder / "weights"


def test_every_stage_runs_and_the_host_loads_what_it_made(made: Path) -> None:
    assert {path.relative_to(made).as_posix() for path in made.rglob("*.*")} == set(FILES.values())
    register()
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(made / f"{NAME}.safetensors"))
    assert clip is not None
    assert vae is not None
    adapter = formats.load(made / f"{NAME}-adapter.safetensors")
    layers, width = read_unet(model)
    assert adapter.config.layers == layers
    assert adapter.config.mapper.token_width == width
    vision = comfy.clip_vision.load(str(made / f"{NAME}-clip-vision.safetensors"))
    assert vision.image_size == 224
    load_analysis(made / "insightface" / "models" / "miniature", "CPU", 256)

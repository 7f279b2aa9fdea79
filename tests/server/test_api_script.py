"""The script that shows how a program queues a workflow, run as its user would."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pack.dev.cache import ROOT
from pack.dev.server_api import Server
from pack.gallery.miniature import gallery_models
from pack.gallery.workflow import read, to_prompt, workflow_file
from PIL import Image

FOLDER = ROOT / "docs" / "api"
PROMPT = "a photo of a man, smiling, wearing a red sweater, in the forest"


@pytest.fixture
def on_the_miniature(tmp_path: Path) -> Path:
    values = {**gallery_models().values, "steps": 4}
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(to_prompt(read(workflow_file("photo"), values))))
    return path


def call(server: Server, folder: Path, photo: Path, *options: str) -> subprocess.CompletedProcess:
    script = [sys.executable, str(FOLDER / "draw_person.py"), str(photo), PROMPT]
    address = ["--server", server.url]
    return subprocess.run(
        [*script, *address, *options],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_script_draws_a_picture(server: Server, on_the_miniature: Path, tmp_path: Path) -> None:
    photo = ROOT / "workflows" / "inputs" / "person_1.jpg"
    done = call(server, tmp_path, photo, "--workflow", str(on_the_miniature), "--seed", "7")
    assert done.returncode == 0, done.stderr
    (saved,) = tmp_path.glob("*.png")
    assert f"Saved {saved.name}, seed 7" in done.stdout
    with Image.open(saved) as picture:
        prompt = json.loads(picture.info["prompt"])
    texts = [n["inputs"]["text"] for n in prompt.values() if n["class_type"] == "CLIPTextEncode"]
    assert PROMPT in texts
    assert len(set(texts)) == 2


def test_the_script_says_what_went_wrong(
    server: Server, on_the_miniature: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "wall.png"
    Image.new("RGB", (320, 320), "grey").save(photo)
    done = call(server, tmp_path, photo, "--workflow", str(on_the_miniature))
    assert done.returncode == 1
    assert "No face" in done.stderr
    assert "InfiniteIDEncode" in done.stderr
    done = call(server, tmp_path, photo)  # the real files' names: this server has them not
    assert done.returncode == 1
    assert "sd_xl_base_1.0.safetensors" in done.stderr


def test_the_api_workflow_is_the_first_template() -> None:
    found = json.loads((FOLDER / "photo.json").read_text(encoding="utf-8"))
    assert found == to_prompt(read(workflow_file("photo"), {})), "run: python -m dev workflows"

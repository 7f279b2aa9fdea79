"""A workflow and an identity file give the picture again where no face can be looked at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pack.dev.photos import photos
from pack.dev.server import running_server
from pack.dev.server_api import Prompt, Run, Server
from pack.dev.small_models import SmallModels
from pack.gallery.workflow import read, to_prompt, workflow_file
from PIL import Image

ENCODE, APPLY = "InfiniteIDEncode", "InfiniteIDApply"
SAVE, LOAD = "InfiniteIDSaveIdentity", "InfiniteIDLoadIdentity"
FACE_ANALYSIS, ADAPTER = "InfiniteIDLoadFaceAnalysis", "InfiniteIDLoadModel"

# A pack that makes these impossible to import, as if they had never been installed.
WITHOUT_FACE_PACKAGES = """
import sys
sys.modules["insightface"] = sys.modules["onnxruntime"] = None
NODE_CLASS_MAPPINGS = {}
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of identities somewhere else, that the bare server is told of."""
    return tmp_path_factory.mktemp("people")


@pytest.fixture(scope="module")
def bare(
    small: SmallModels, people: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A fresh server that cannot import InsightFace."""
    folder = tmp_path_factory.mktemp("pack")
    pack, paths = folder / "without_face_packages.py", folder / "extra_model_paths.yaml"
    pack.write_text(WITHOUT_FACE_PACKAGES)
    paths.write_text(f"mine:\n  infinite_id_identities: {people}\n")
    with running_server(
        models=small.models,
        custom_nodes=[*small.custom_nodes, pack],
        arguments=["--extra-model-paths-config", str(paths)],
    ) as server:
        yield server


@pytest.fixture
def prompt(small: SmallModels) -> Prompt:
    """The first workflow."""
    values = {**small.values, "image": "obama.jpg", "steps": 2}
    return to_prompt(read(workflow_file("separate_models"), values))


def find(prompt: Prompt, kind: str) -> str:
    return next(node for node, entry in prompt.items() if entry["class_type"] == kind)


def without(prompt: Prompt, *kinds: str) -> Prompt:
    return {node: entry for node, entry in prompt.items() if entry["class_type"] not in kinds}


def only(prompt: Prompt, kind: str) -> Prompt:
    return {find(prompt, kind): prompt[find(prompt, kind)]}


def save(prompt: Prompt, overwrite: str = "number") -> Prompt:
    """The node that saves the identity of a workflow."""
    inputs = {
        "identity": [find(prompt, ENCODE), 0],
        "filename_prefix": "identities/person",
        "overwrite": overwrite,
        "include_thumbnail": True,
    }
    return {"save": {"class_type": SAVE, "inputs": inputs}}


def load(prompt: Prompt, name: str) -> Prompt:
    """The nodes that load an identity and show its thumbnails."""
    inputs = {"identity_name": name, "adapter": [find(prompt, ADAPTER), 0]}
    shown = {"class_type": "PreviewImage", "inputs": {"images": ["load", 1]}}
    return {"load": {"class_type": LOAD, "inputs": inputs}, "shown": shown}


def load_instead(prompt: Prompt, name: str) -> Prompt:
    """The workflow with a file in the place of photo, face model and CLIP vision."""
    apply = find(prompt, APPLY)
    inputs = prompt[apply]["inputs"] | {"identity": ["load", 0]}
    kept = without(prompt, ENCODE, FACE_ANALYSIS, "LoadImage", "CLIPVisionLoader")
    return kept | load(prompt, name) | {apply: prompt[apply] | {"inputs": inputs}}


def open_images(server: Server, run: Run, node: str) -> list[np.ndarray]:
    assert not run.errors, run.errors
    return [np.asarray(Image.open(path)) for path in server.files(run, node)]


def test_same_picture_without_photo_and_insightface(
    server: Server, bare: Server, people: Path, prompt: Prompt
) -> None:
    result = find(prompt, "SaveImage")
    first = server.queue(prompt | save(prompt))
    (expected,) = open_images(server, first, result)
    (file,) = server.files(first, "save", "identities")
    size = file.stat().st_size / 1e6
    assert first.outputs["save"]["text"] == [f"Saved output/identities/{file.name}, {size:.2f} MB."]

    bare.upload(photos()["obama"])
    (error,) = bare.queue(prompt).errors
    assert error.node == find(prompt, FACE_ANALYSIS)
    assert "needs InsightFace" in error.message

    name = bare.upload(file)
    again = bare.queue(load_instead(prompt, f"{name} [input]"))
    (picture,) = open_images(bare, again, result)
    assert np.array_equal(picture, expected)
    (thumbnail,) = open_images(bare, again, "shown")
    assert np.array_equal(thumbnail, open_images(server, first, "save")[0])
    assert thumbnail.std() > 10, "it shows nothing"

    shutil.copy(file, people / "anna.safetensors")
    shown = bare.queue(only(prompt, ADAPTER) | load(prompt, "anna.safetensors"))
    assert np.array_equal(open_images(bare, shown, "shown")[0], thumbnail)


def test_a_replaced_file_is_read_again(server: Server, prompt: Prompt) -> None:
    """Twice the same graph, which the host has in its cache, and another person's file."""
    encode = without(prompt, APPLY, "KSampler", "VAEDecode", "SaveImage")
    files = []
    for image in ("obama.jpg", "biden.jpg"):
        encode[find(prompt, "LoadImage")]["inputs"]["image"] = image
        run = server.queue(encode | save(prompt, overwrite="replace"))
        (file,) = server.files(run, "save", "identities")
        files.append(file.rename(file.with_name(f"{image}.safetensors")))
    show = only(prompt, ADAPTER) | load(prompt, "identities/shown.safetensors [output]")
    seen = []
    for path in files:
        path.replace(path.with_name("shown.safetensors"))
        seen += open_images(server, server.queue(show), "shown")
    assert not np.array_equal(*seen)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("identities/gone.safetensors [output]", "no identity file 'identities/gone.safetensors"),
        ("../../models/infinite_id/text.safetensors [output]", "no identity file '../../models"),
        ("text.safetensors [input]", "text.safetensors is no identity file"),
    ],
)
def test_bad_input(server: Server, prompt: Prompt, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "text.safetensors").write_text("not an identity")
    server.upload(tmp_path / "text.safetensors")
    run = server.queue(load_instead(prompt, name))
    (error,) = run.errors
    assert error.node == "load"
    assert said in f"{error.message} {error.details}"
    assert find(prompt, "KSampler") not in run.seconds


def test_nothing_is_saved_outside_the_output_folder(server: Server, prompt: Prompt) -> None:
    node: dict[str, Any] = save(prompt)["save"]
    node["inputs"]["filename_prefix"] = "../person"
    run = server.queue(
        without(prompt, APPLY, "KSampler", "VAEDecode", "SaveImage") | {"save": node}
    )
    (error,) = run.errors
    assert error.node == "save"
    assert "outside the output folder" in error.message
    assert not list(server.base.glob("person*"))

"""One real server for all tests of this folder, with photos and files good and bad."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pack.dev.photos import photos
from pack.dev.server_api import Run, Server
from pack.dev.small_models import ADAPTER, SmallModels, small_models
from pack.gallery.miniature import gallery_models, running_gallery
from pack.gallery.workflow import read, to_prompt, workflow_file
from PIL import Image

ENCODE, APPLY = "InfiniteIDEncode", "InfiniteIDApply"


@pytest.fixture(scope="session")
def small() -> SmallModels:
    return small_models()


@pytest.fixture(scope="session")
def server(small: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("files")
    broken = write_broken_adapters(folder, small.models["infinite_id"][0])
    trained = gallery_models().models
    models = {name: [*small.models.get(name, []), *files] for name, files in trained.items()}
    models["infinite_id"] += broken
    with running_gallery(replace(small, models=models)) as server:
        for path in [*photos().values(), *write_odd_photos(folder)]:
            server.upload(path)
        yield server


def write_broken_adapters(folder: Path, good: Path) -> list[Path]:
    """A truncated file, one that is no safetensors file, and one of another kind."""
    data = good.read_bytes()
    truncated, text, foreign = (
        folder / f"{name}.safetensors" for name in ("truncated", "text", "foreign")
    )
    truncated.write_bytes(data[: len(data) // 2])
    text.write_text("not a model")
    foreign.write_bytes(small_models().models["clip_vision"][0].read_bytes())
    return [truncated, text, foreign]


def write_odd_photos(folder: Path) -> list[Path]:
    """One man's photo as grey, RGBA, 16 bit, tiny and huge; and a picture without a face."""
    portrait = Image.open(photos()["obama"]).convert("RGB")
    deep = Image.fromarray(np.asarray(portrait.convert("L")).astype(np.uint16) * 257)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    pictures = {
        "grey.png": portrait.convert("L"),
        "rgba.png": portrait.convert("RGBA"),
        "deep.png": deep,
        "tiny.png": portrait.resize((20, 20)),
        "huge.jpg": portrait.resize((8000, 6000)),
        "noface.png": Image.fromarray(noise),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    return [folder / name for name in pictures]


class Graph:
    """The first workflow in API form, with widgets changed by their names."""

    def __init__(self, server: Server, small: SmallModels) -> None:
        self.server = server
        self.values: dict[str, Any] = {**small.values, "image": "obama.jpg", "steps": 2}

    def prompt(self, **values: Any) -> Any:
        """The workflow in API form."""
        return to_prompt(read(workflow_file("separate_models"), {**self.values, **values}))

    def run(self, **values: Any) -> Run:
        """Queue the workflow; the result names nodes by their class."""
        prompt = self.prompt(**values)
        run = self.server.queue(prompt)
        self.classes = {node: entry["class_type"] for node, entry in prompt.items()}
        return run

    def picture(self, run: Run) -> np.ndarray:
        node = next(node for node, name in self.classes.items() if name == "SaveImage")
        assert not run.errors, run.errors
        return np.asarray(Image.open(self.server.files(run, node)[0]))

    def complaint(self, run: Run) -> tuple[str, str]:
        """The class of the node that complained, and what it said; nothing may have sampled."""
        sampled = {node for node in run.seconds if self.classes[node] == "KSampler"}
        assert not sampled, "sampling began before the error"
        (error,) = run.errors
        return self.classes[error.node], f"{error.message} {error.details}"


@pytest.fixture
def graph(server: Server, small: SmallModels) -> Graph:
    return Graph(server, small)


__all__ = ["ADAPTER", "APPLY", "ENCODE"]

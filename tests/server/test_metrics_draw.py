"""A plan through two real servers, one of which is killed; then its report."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pack.dev.server import running_server
from pack.dev.server_api import Server
from pack.gallery.miniature import INPUTS, miniature
from pack.infinite_id.metrics import command
from pack.infinite_id.metrics.draw import draw
from pack.miniature.shapes import WEIGHTS
from PIL import Image

CELLS = 10


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    small = miniature()
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                running_server(models=small.models, custom_nodes=small.custom_nodes)
            )
            for _ in range(2)
        ]


def write_plan(folder: Path) -> Path:
    """Ten cells by the shipped workflow, on the miniature."""
    for n in (1, 2):
        shutil.copy(INPUTS / f"face_{n}.jpg", folder)
    values = miniature().values
    inputs = {
        "LoadImage.image": "{photo}",
        "Prompt.text": "{prompt}",
        "KSampler.seed": "{seed}",
        "KSampler.steps": 6,
        "EmptyLatentImage.width": 128,
        "EmptyLatentImage.height": 128,
        **{
            f"{node}.{name}": values[name]
            for node, name in (
                ("CheckpointLoaderSimple", "ckpt_name"),
                ("InfiniteIDUnifiedLoader", "preset"),
                ("InfiniteIDUnifiedLoader", "face_pack"),
                ("InfiniteIDUnifiedLoader", "detection_size"),
            )
        },
    }
    plan = {
        "people": {"anna": {"photos": ["face_1.jpg", "face_2.jpg"], "noun": "woman"}},
        "prompts": {"beach": "a photo of a {noun}, on the beach", "sketch": "a sketch of a {noun}"},
        "seeds": list(range(CELLS // 2)),
        "methods": {"ours": {"workflow": "infinite-id", "inputs": inputs}},
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder / "plan.json"


def saved(server: Server) -> list[Path]:
    return sorted((server.base / "output").rglob("*.png"))


def test_ten_cells_and_a_server_that_is_killed(servers: list[Server], tmp_path: Path) -> None:
    first, second = servers

    def kill_when_it_draws() -> None:
        while not saved(second):
            time.sleep(0.1)
        os.kill(second.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_when_it_draws)
    killer.start()
    out = tmp_path / "pictures"
    outcome = draw(write_plan(tmp_path), out, [first.url, second.url])
    killer.join()
    assert (outcome.drawn, outcome.failed, outcome.skipped) == (CELLS, {}, {})
    pictures = sorted((out / "ours").rglob("*.png"))
    assert len(pictures) == CELLS
    assert len({path.read_bytes() for path in pictures}) == CELLS
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.size == (128, 128)
    # What the killed one had saved but not handed over may be drawn again, and nothing else.
    assert CELLS <= len(saved(first)) + len(saved(second)) <= CELLS + 1
    pack = WEIGHTS / "insightface" / "models" / "miniature"
    nets = ["--face-pack", str(pack), "--provider", "CPU", "--detection-size", "256"]
    assert command.main(["score", str(out), "--out", str(tmp_path / "report"), *nets]) == 0
    figures = json.loads((tmp_path / "report" / "figures.json").read_text())
    assert figures["pictures"] == CELLS
    assert figures["problems"] == [] or all("no face" in problem for problem in figures["problems"])

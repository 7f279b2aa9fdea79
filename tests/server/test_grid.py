"""Many variations from one queue, in a real server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

SHEET = {
    "labels": "",
    "row_labels": "",
    "title": "weight x style",
    "columns": 0,
    "cell_size": 0,
    "gap": 4,
    "margin": 4,
}


def draw_grid(graph: Any, columns: str, rows: str, wires: dict[str, tuple[str, int]]) -> Any:
    """Queue the first workflow with a grid; `wires`: widget -> node's class and grid's output."""
    prompt = graph.prompt()
    nodes = {entry["class_type"]: (number, entry) for number, entry in prompt.items()}
    for widget, (kind, output) in wires.items():
        nodes[kind][1]["inputs"][widget] = ["grid", output]
    prompt["grid"] = {"class_type": "InfiniteIDGrid", "inputs": {"columns": columns, "rows": rows}}
    decoded = [nodes["VAEDecode"][0], 0]
    sheet = {**SHEET, "images": decoded, "grid": ["grid", 2]}
    prompt["sheet"] = {"class_type": "InfiniteIDContactSheet", "inputs": sheet}
    run = graph.server.queue(prompt)
    return run, [number for number, entry in prompt.items() if entry["class_type"] == "SaveImage"]


def pictures(graph: Any, run: Any, node: str) -> list[np.ndarray]:
    assert not run.errors, run.errors
    return [np.asarray(Image.open(path)) for path in graph.server.files(run, node)]


def test_weights_with_styles(graph: Any) -> None:
    """Each cell is the picture that its values give alone; the sheet has all of them."""
    wires = {"weight": ("InfiniteIDApply", 0), "style": ("InfiniteIDApply", 1)}
    run, (save,) = draw_grid(graph, "0\n1.5", "photo\nstyle (AdaIN-mean)", wires)
    drawn = pictures(graph, run, save)
    assert len(drawn) == 4
    (sheet,) = pictures(graph, run, "sheet")
    assert sheet.shape[0] > 2 * 128
    assert sheet.shape[1] > 2 * 128
    assert np.array_equal(drawn[0], drawn[2]), "weight 0 does not depend on the style"
    for index, style in ((1, "photo"), (3, "style (AdaIN-mean)")):
        alone = graph.picture(graph.run(weight=1.5, style=style))
        assert np.array_equal(drawn[index], alone)
    assert not np.array_equal(drawn[1], drawn[3])


def test_a_list_of_prompts(graph: Any) -> None:
    prompt = graph.prompt()
    positive = next(e["inputs"]["positive"][0] for e in prompt.values() if "cfg" in e["inputs"])
    texts = ["a man in the snow", "a woman on the beach"]
    prompt[positive]["inputs"]["text"] = ["grid", 0]
    prompt["grid"] = {
        "class_type": "InfiniteIDGrid",
        "inputs": {"columns": "\n".join(texts), "rows": ""},
    }
    save = next(number for number, e in prompt.items() if e["class_type"] == "SaveImage")
    drawn = pictures(graph, graph.server.queue(prompt), save)
    assert len(drawn) == 2
    for text, found in zip(texts, drawn, strict=True):
        prompt[positive]["inputs"]["text"] = text
        (alone,) = pictures(graph, graph.server.queue(prompt), save)
        assert np.array_equal(found, alone)


def test_adapters_beside_each_other(graph: Any) -> None:
    """The same file twice: the loader, and all behind it, runs for each."""
    prompt = graph.prompt()
    name = next(e for e in prompt.values() if e["class_type"] == "InfiniteIDLoadModel")
    adapter = name["inputs"]["model_name"]
    wires = {"model_name": ("InfiniteIDLoadModel", 0), "weight": ("InfiniteIDApply", 1)}
    run, (save,) = draw_grid(graph, f"{adapter}\n{adapter}", "0.5\n1", wires)
    drawn = pictures(graph, run, save)
    assert np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[2], drawn[3])
    assert not np.array_equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("much", "style must be one of: photo, style"),
        (" ", "Grid of Variations: columns is empty"),
    ],
)
def test_wrong_values_are_refused(graph: Any, columns: str, message: str) -> None:
    run, _ = draw_grid(graph, columns, "", {"style": ("InfiniteIDApply", 0)})
    (error,) = run.errors
    assert message in error.message

"""The pack in a real server: it starts fast, runs, repeats itself, and explains bad input."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pack.dev.server import PACK
from pack.dev.server_api import Server

ENCODE, LOAD = "InfiniteIDEncode", "InfiniteIDLoadModel"


def test_start_up(server: Server) -> None:
    """By the host's own report the pack's import takes less than a second, however busy it is."""
    log = re.sub(r"\x1b\[[0-9;]*m", "", server.log.read_text(encoding="utf-8"))
    (seconds,) = re.findall(rf"([\d.]+) seconds: .*{PACK}", log)
    print(f"import time: {seconds} s")
    assert float(seconds) < 1


def test_every_input_and_output_has_a_tooltip(server: Server) -> None:
    info = server.object_info()
    ours = {name: node for name, node in info.items() if name.startswith("InfiniteID")}
    assert len(ours) >= 4
    for name, node in ours.items():
        assert node["description"], name
        assert all(node["output_tooltips"]), name
        for group in ("required", "optional"):
            for entry, spec in node["input"].get(group, {}).items():
                assert spec[1].get("tooltip"), f"{name}.{entry}"


def test_same_graph_twice_gives_the_same_picture(graph: Any) -> None:
    first = graph.picture(graph.run())
    other = graph.picture(graph.run(seed=7))
    again_run = graph.run()
    again = graph.picture(again_run)
    assert any(graph.classes[node] == "KSampler" for node in again_run.seconds), (
        "only the cache ran"
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_settings_change_the_picture_and_weight_0_does_not_depend_on_them(graph: Any) -> None:
    settings = [
        {"mixed_attention": mixing, "style": style}
        for mixing in ("mixed", "mutual", "off")
        for style in ("photo", "style (AdaIN-mean)")
    ]
    pictures = [graph.picture(graph.run(**values)) for values in settings[:4]]
    plain = [graph.picture(graph.run(weight=0.0, **values)) for values in settings[::2]]
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
    assert not np.array_equal(pictures[0], plain[0])
    assert all(np.array_equal(plain[0], other) for other in plain)


@pytest.mark.parametrize("image", ["grey.png", "rgba.png", "deep.png", "huge.jpg", "32bit.png"])
def test_odd_photos_work(graph: Any, server: Server, image: str) -> None:
    """Grey, RGBA, 16 bit and 48 megapixel photos are photos."""
    version = server.get("/system_stats")["system"]["comfyui_version"]
    if image == "deep.png" and tuple(map(int, version.split("."))) < (0, 24):
        where, message = graph.complaint(graph.run(image=image))
        assert where == ENCODE
        assert "No face found" in message, "this host's Load Image turns 16 bit grey into white"
        return
    assert graph.picture(graph.run(image=image)).shape == (128, 128, 3)


@pytest.mark.parametrize(
    ("values", "node", "parts"),
    [
        ({"image": "noface.png"}, ENCODE, ["No face found in photo 1 of 1 (640x480)"]),
        ({"image": "tiny.png"}, ENCODE, ["photo 1 of 1 (20x20) is", "32x32"]),
        ({"image": "gone.png"}, "LoadImage", ["gone.png"]),
        ({"model_name": "gone.safetensors"}, LOAD, ["gone.safetensors"]),
        ({"model_name": "truncated.safetensors"}, LOAD, ["truncated.safetensors is damaged"]),
        ({"model_name": "text.safetensors"}, LOAD, ["text.safetensors is damaged"]),
        ({"model_name": "foreign.safetensors"}, LOAD, ["foreign.safetensors is no adapter that"]),
        ({"pack": "gone"}, "InfiniteIDLoadFaceAnalysis", ["gone"]),
        ({"provider": "DirectML"}, "InfiniteIDLoadFaceAnalysis", ["DirectML", "CPUExecution"]),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)
def test_bad_input(graph: Any, values: dict[str, Any], node: str, parts: list[str]) -> None:
    """Each mistake is reported at the node that holds it, by name, before anything samples."""
    where, message = graph.complaint(graph.run(**values))
    print(f"{where}: {message.splitlines()[0]}")
    assert where == node
    for part in parts:
        assert part in message


def test_nothing_of_ours_in_the_log_but_what_should_be(server: Server) -> None:
    """Which provider runs the face model is said once per load; nothing is left half-written."""
    assert "Infinite-ID: face model 'yunet-fr' runs on CPUExecutionProvider" in Path(
        server.log
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "given",
    [[["1", 0], ["2", 0]], {"image_2": ["1", 0]}, "obama.jpg"],
    ids=["list", "dict", "name"],
)
def test_further_photos_in_no_input_are_explained(graph: Any, server: Server, given: Any) -> None:
    """Before the run: nothing would arrive at the node."""
    prompt = graph.prompt()
    encode = next(n for n in prompt.values() if n["class_type"] == ENCODE)
    encode["inputs"]["more_images"] = given
    errors = server.queue(prompt).errors
    assert any("more_images.image_2" in error.details for error in errors)


@pytest.mark.parametrize("name", ["more_images", "more_images.image_2", "more_images.image0"])
def test_further_photos_by_hand(graph: Any, server: Server, name: str) -> None:
    """The name in the page's own prompts, and those that people write."""
    prompt = graph.prompt()
    encode = next(n for n in prompt.values() if n["class_type"] == ENCODE)
    encode["inputs"][name] = encode["inputs"]["image"]
    encode["inputs"]["weights"] = "1, 1"
    assert not server.queue(prompt).errors

"""Infinite-ID Diagnose in a real server, over files that are good, damaged and of another kind."""

import json

import pytest
from pack.dev.cache import ROOT
from pack.dev.comfyui import host_folder
from pack.dev.server import PACK
from pack.dev.server_api import Server
from pack.dev.small_models import ADAPTER, CLIP_VISION
from pack.gallery.miniature import NAME
from pack.gallery.workflow import workflow_files

PROMPT = {"1": {"class_type": "InfiniteIDDiagnose", "inputs": {}}}


@pytest.fixture(scope="module")
def report(server: Server) -> dict[str, list[str]]:
    """The sections' lines by their titles."""
    run = server.queue(PROMPT)
    assert run.errors == []
    (text,) = run.outputs["1"]["text"]
    sections = text.removeprefix("## ").split("\n\n## ")
    return {s.splitlines()[0]: [line[2:] for line in s.splitlines()[1:]] for s in sections}


def find(lines: list[str], start: str) -> str:
    (line,) = [line for line in lines if line.startswith(start)]
    return line


def test_versions(report: dict[str, list[str]], server: Server) -> None:
    system = server.get("/system_stats")["system"]
    lines = report["Versions"]
    assert f"ComfyUI {system['comfyui_version']}, frontend " in lines[0]
    assert f"torch {system['pytorch_version'].partition('+')[0]}" in lines[1]
    packs = find(lines, "node packs: ").removeprefix("node packs: ").split(", ")
    assert PACK in packs
    assert len(set(packs)) == len(packs)
    assert (host_folder() / "comfy_extras").is_dir()
    assert "comfy_extras" not in packs


def test_devices_and_providers(report: dict[str, list[str]]) -> None:
    lines = report["Devices"]
    assert find(lines, "cpu: ").endswith("GB free")
    assert "CPUExecutionProvider" in find(lines, "providers: ")
    assert not [line for line in lines if "PROBLEM" in line]


def test_memory(report: dict[str, list[str]]) -> None:
    weights, step, verdict = report["Memory"]
    assert weights.startswith("SDXL's weights as float32 here: 10.3 GB")
    assert "with a person in two streams" in step
    assert "of this device" in verdict


def test_adapters(report: dict[str, list[str]], server: Server) -> None:
    lines = report["Adapters"]
    assert str(server.base / "models" / "infinite_id") in lines
    good = find(lines, ADAPTER)
    assert "Infinite-ID for " in good
    assert "4 tokens and one for each CLIP state, 70 layers" in good
    assert find(lines, f"{NAME}-adapter")
    assert "PROBLEM: truncated.safetensors is damaged" in find(lines, "truncated.safetensors")
    assert "PROBLEM: text.safetensors is damaged" in find(lines, "text.safetensors")
    foreign = "PROBLEM: foreign.safetensors is no adapter that this pack knows"
    assert foreign in find(lines, "foreign.safetensors")


def test_face_models_and_clip_vision(report: dict[str, list[str]], server: Server) -> None:
    for pack in (server.base / "models" / "insightface" / "models").iterdir():
        line = find(report["Face models"], f"{pack.name}: ")
        assert all(net.name in line for net in pack.glob("*.onnx"))
    assert "CLIP image encoder" in find(report["CLIP vision"], CLIP_VISION)


def test_what_workflows_lack(report: dict[str, list[str]], server: Server) -> None:
    """By the server's own lists: every named file that is not in them, and no other."""
    info = server.object_info()
    lines = report["Workflows"]
    loaders = {
        "CheckpointLoaderSimple": "ckpt_name",
        "CLIPVisionLoader": "clip_name",
        "InfiniteIDLoadModel": "model_name",
        "InfiniteIDLoadFaceAnalysis": "pack",
        "LoadImage": "image",
    }
    lacking = 0
    for path in workflow_files():
        for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
            if node["type"] not in loaders:
                continue
            value = node["widgets_values"][0]
            kind, *rest = info[node["type"]]["input"]["required"][loaders[node["type"]]]
            choices = kind if isinstance(kind, list) else rest[0]["options"]
            named = [x for x in lines if f", {value} (" in x and path.stem in x.split(": ")[-1]]
            assert len(named) == (value not in choices), (path.stem, node["type"], value)
            lacking += len(named)
    assert lacking
    assert not [line for line in lines if "no node" in line]
    assert len(workflow_files()) == len(list((ROOT / "workflows").glob("*.json")))


def test_it_looks_again_each_time(server: Server, report: dict[str, list[str]]) -> None:
    late = server.base / "models" / "infinite_id" / "late.safetensors"
    late.write_text("not a model")
    run = server.queue(PROMPT)
    late.unlink()
    assert "late.safetensors: PROBLEM" not in "\n".join(report["Adapters"])
    assert "late.safetensors: PROBLEM" in run.outputs["1"]["text"][0]

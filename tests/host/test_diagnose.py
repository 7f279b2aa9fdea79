"""What Infinite-ID Diagnose says about files, and what it keeps to itself."""

import sys
from pathlib import Path
from typing import Any

import comfy.supported_models
import folder_paths
import pytest
import safetensors
import torch
from pack.bench import adapter_files
from pack.infinite_id import tensor_files
from pack.infinite_id.adapters import formats
from pack.nodes import diagnose, folders, inventory

TOKEN_WIDTH = 64
WANTED = {
    "FaceID": "IP-Adapter FaceID for another kind of model, 4 tokens, 70 layers, face model: "
    "buffalo_l, CLIP vision: none, keys and values {4} MB with one photo, with a LoRA",
    "FaceID PlusV2": "IP-Adapter FaceID PlusV2 for another kind of model, 4 tokens, 70 layers, "
    "face model: buffalo_l, CLIP vision: CLIP ViT-H/14, keys and values {4} MB with one photo",
    "Plus Face": "IP-Adapter Plus Face for another kind of model, 16 tokens, 70 layers, "
    "face model: any, CLIP vision: CLIP ViT-H/14, keys and values {16} MB with one photo",
    "InstantID": "InstantID for another kind of model, 16 tokens, 70 layers, face model: "
    "antelopev2, CLIP vision: none, keys and values {16} MB with one photo",
}
MEGABYTES = {"{4}": "2.7", "{16}": "10.6"}
"""Of keys and values of so many tokens and as many of no identity, 16 bits, in 70 layers."""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder, the only one that the host searches."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    known = folder_paths.folder_names_and_paths
    empty: dict[str, Any] = {name: ([], set(endings)) for name, (_, endings) in known.items()}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", empty)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    folders.register()
    for name in ("clip_vision", "custom_nodes"):
        folder_paths.add_model_folder_path(name, str(tmp_path / "models" / name))
    for name in ("ipadapter", "clip_vision"):
        (tmp_path / "models" / name).mkdir(parents=True)
    return tmp_path / "models"


def fill(text: str) -> str:
    for tokens, size in MEGABYTES.items():
        text = text.replace(tokens, size)
    return text


@pytest.mark.parametrize("kind", WANTED)
def test_adapters_are_recognised_by_their_headers(
    models: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    tensors = adapter_files.make(kind, TOKEN_WIDTH, lora_rank=2 if kind == "FaceID" else 0)
    path = adapter_files.write_safetensors(models / "ipadapter" / "a.safetensors", tensors)
    assert formats.inspect(path).config == formats.load(path).config

    def forbidden(*_: object) -> None:
        raise AssertionError("a weight was read")

    class Closed:
        """The opened file without the door to its weights."""

        def __init__(self, *arguments: object, **named: object) -> None:
            self.file = safetensors.safe_open(*arguments, **named)
            self.get_slice, self.keys = self.file.get_slice, self.file.keys
            self.metadata, self.get_tensor = self.file.metadata, forbidden

        def __enter__(self) -> "Closed":
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(tensor_files, "safe_open", Closed)
    size = round(path.stat().st_size / 1e6, 1)
    assert list(inventory.list_adapters()) == [
        f"ipadapter/a.safetensors ({size} MB): {fill(WANTED[kind])}"
    ]
    with pytest.raises(AssertionError, match="a weight was read"):
        formats.load(path)


def test_unusable_files_have_a_line_each(models: Path) -> None:
    folder = models / "ipadapter"
    (folder / "damaged.bin").write_bytes(b"PK\x03\x04 no archive")
    torch.save({"image_proj": {"code": diagnose.compose}}, folder / "code.bin")
    (folder / "gone.safetensors").symlink_to(folder / "nowhere.safetensors")
    lines = list(inventory.list_adapters())
    assert len(lines) == len(list(folder.iterdir()))
    assert all("PROBLEM: " in line for line in lines)
    text = "\n".join(lines)
    assert "damaged.bin is damaged or incomplete" in text
    assert "gone.safetensors: PROBLEM: it cannot be read" in text
    assert "code.bin holds more than tensors, so it was not opened" in text


def test_clip_vision_models_are_told_apart(models: Path) -> None:
    name = "vision_model.embeddings.class_embedding"
    for file, width in (("a", 1280), ("b", 1664)):
        path = models / "clip_vision" / f"{file}.safetensors"
        adapter_files.write_safetensors(path, {name: torch.zeros(width)})
    lines = list(inventory.list_clip_vision())
    assert [line.partition("): ")[2] for line in lines] == ["CLIP ViT-H/14", "CLIP ViT-bigG/14"]


def test_the_home_folder_is_not_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(models.parent))
    monkeypatch.setenv("USERPROFILE", str(models.parent))
    text = diagnose.compose()
    assert str(models.parent) not in text
    assert f"- {Path('~', 'models', 'ipadapter')}\n" in text
    neighbour = f"{models.parent}-2"
    assert diagnose.shorten_home(f"{neighbour} {models.parent}") == f"{neighbour} ~"


def list_runtime(monkeypatch: pytest.MonkeyPatch, found: dict[str, str]) -> list[str]:
    monkeypatch.setattr(inventory, "_find_version", lambda n: found.get(n, inventory.MISSING))
    return list(inventory.list_face_runtime())


def test_the_stub_is_not_a_second_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"onnxruntime": inventory.STUB, "onnxruntime-gpu": "1.20"}
    one, providers, working = list_runtime(monkeypatch, found)
    assert one == "onnxruntime: onnxruntime-gpu 1.20"
    assert "CPUExecutionProvider" in providers
    assert working == "face nets run on: CPU"


def test_two_onnxruntimes_are_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"onnxruntime": "1.20", "onnxruntime-gpu": "1.31"}
    last = list_runtime(monkeypatch, found)[-1]
    assert "onnxruntime 1.20 and onnxruntime-gpu 1.31 share one folder" in last
    assert "`pip uninstall onnxruntime onnxruntime-gpu`" in last


def test_an_onnxruntime_that_is_the_stub_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    *_, last = list_runtime(monkeypatch, {"onnxruntime": inventory.STUB})
    assert last.startswith("PROBLEM: the face nets cannot run (")
    assert "`pip uninstall onnxruntime`, then install requirements.txt again" in last


def test_a_gpu_that_onnxruntime_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    last = list_runtime(monkeypatch, {"onnxruntime-gpu": "1.31"})[-1]
    assert last.startswith("PROBLEM: there is a CUDA GPU, and the face nets run on the CPU.")
    assert "which is 12.8" in last


def test_memory_is_told_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the host's own count for SDXL: 2.57 thousand million weights, four rows with a person."""
    weights = 2_567_463_684 * 4
    step = 4 * 128 * 128 * 0.15 * comfy.supported_models.SDXL.memory_usage_factor * 2**20
    for total, verdict in ((weights + step, "both fit into"), (weights + step - 1, "both do not")):
        monkeypatch.setattr(inventory.model_management, "get_total_memory", lambda _, n=total: n)
        first, second, third = inventory.list_memory()
        assert first.startswith(f"SDXL's weights as float32 here: {weights / 1e9:.1f} GB")
        assert f"{step / 2e9:.1f} GB; with a person in two streams {step / 1e9:.1f} GB" in second
        assert third.startswith(verdict)
        assert f"{total / 1e9:.1f} GB" in third

"""The unified loader: a preset's models among the user's files, and what is missing."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from typing import Any

import comfy.clip_vision
import folder_paths
import pytest
import torch
from pack.bench import adapter_files
from pack.bench.unet_adapters import make_file
from pack.infinite_id.adapters import formats
from pack.infinite_id.adapters.adapter import Adapter, AdapterConfig
from pack.infinite_id.adapters.formats import ip_adapter
from pack.infinite_id.adapters.mappers import MapperConfig
from pack.infinite_id.attention.blocks import SDXL, list_layers
from pack.infinite_id.presets import NATIVE, PLUS_V2, PRESETS
from pack.miniature.random_weights import write
from pack.nodes import diagnose, finding, folders
from pack.nodes.load_preset import UnifiedLoader
from pack.tests.host.world import World

MAPPER = MapperConfig(clip_width=64, token_width=128)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder, the only one that the host searches."""
    root = tmp_path / "models"
    monkeypatch.setattr(folder_paths, "models_dir", str(root))
    known = folder_paths.folder_names_and_paths
    empty: dict[str, Any] = {name: ([], set(endings)) for name, (_, endings) in known.items()}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", empty)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    folders.register()
    folder_paths.add_model_folder_path("clip_vision", str(root / "clip_vision"))
    for name in (*folders.ADAPTERS, "clip_vision", "insightface/models"):
        (root / name).mkdir(parents=True)
    return root


def write_clip(path: Path, width: int) -> None:
    name = "vision_model.embeddings.class_embedding"
    adapter_files.write_safetensors(path, {name: torch.zeros(width)})


def write_pack(folder: Path, recogniser: str) -> None:
    folder.mkdir()
    for name in ("detector.onnx", recogniser):
        (folder / name).write_bytes(b"")


@pytest.mark.usefixtures("models")
def test_a_preset_by_a_wire_whose_files_are_missing(least: World) -> None:
    """The host checks no value that comes by a wire: the run itself says what is missing."""
    for preset in PRESETS:
        with pytest.raises(FileNotFoundError, match=rf"{preset} is not complete. Download: "):
            run(least.model, preset)
    with pytest.raises(FileNotFoundError, match="There is no preset 'none such'"):
        run(least.model, "none such")


@pytest.mark.usefixtures("models")
def test_what_is_missing_is_said_with_links_sizes_and_folders() -> None:
    told = str(UnifiedLoader.validate_inputs(PLUS_V2))
    for part in (
        "ip-adapter-faceid-plusv2_sdxl.bin (1.49 GB, https://huggingface.co/h94/IP-Adapter-FaceID/"
        "resolve/main/ip-adapter-faceid-plusv2_sdxl.bin) in models/ipadapter",
        "buffalo_l.zip (289 MB, https://github.com/deepinsight/insightface/",
        "in models/insightface/models/buffalo_l, unpacked",
        "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors (2.53 GB, ",
        "complete here: none",
    ):
        assert part in told
    first = diagnose.compose().splitlines()[1]
    assert first.startswith(f"- {PLUS_V2} lacks ip-adapter-faceid-plusv2_sdxl.bin (1.49 GB, https")


def test_models_are_found_by_what_they_are(models: Path) -> None:
    """Under names that say nothing, beside files of other kinds and damaged ones."""
    for kind, name in (("InstantID", "a"), ("FaceID PlusV2", "b")):
        tensors = adapter_files.make(kind, 64)
        adapter_files.write_safetensors(models / "ipadapter" / f"{name}.safetensors", tensors)
    (models / "ipadapter" / "c.safetensors").write_bytes(b"none")
    write_clip(models / "clip_vision" / "d.safetensors", 1664)
    write_pack(models / "insightface" / "models" / "e", "glintr100.onnx")
    assert [str(gap).split(" ")[0] for gap in finding.list_gaps(PLUS_V2)] == [
        "buffalo_l.zip",
        "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
    ]
    assert finding.list_gaps(PLUS_V2, "e") == finding.list_gaps(PLUS_V2)[1:]
    assert UnifiedLoader.validate_inputs("InstantID") is True
    write_clip(models / "clip_vision" / "f.safetensors", 1280)
    write_pack(models / "insightface" / "models" / "g", "w600k_r50.onnx")
    folder_paths.filename_list_cache.clear()
    assert UnifiedLoader.validate_inputs(PLUS_V2) is True
    assert diagnose.compose().splitlines()[1] == f"- {PLUS_V2}: ready"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_what_recipes_say(models: Path, name: str) -> None:
    """Each is a kind that a file is recognised as, and wants what that file's recipe says."""
    if name == NATIVE:
        pytest.skip("its recipe depends on the file")
    kind = next(k for k, found in adapter_files.NAMES.items() if found == name)
    shapes = adapter_files.shape(kind, 2048, 128 if kind in ("FaceID", "FaceID PlusV2") else 0)
    download = PRESETS[name].adapter
    assert download is not None
    path = adapter_files.write_sparse_safetensors(
        (models / "ipadapter" / download.name).with_suffix(".safetensors"), shapes
    )
    recipe = formats.inspect(path).config.mapper.recipe
    preset = PRESETS[name]
    assert recipe.name == name
    assert (recipe.face_model, recipe.clip_model) == (preset.face_model, preset.clip_model)
    assert abs(download.size / count_bytes(kind, shapes) - 1) < 1e-3


def count_bytes(kind: str, shapes: adapter_files.Shapes) -> int:
    """Of the published file: float16, but for InstantID's and half of Portrait unnorm's."""
    single = {"InstantID": ("",), "FaceID Portrait unnorm": ("image_proj.",)}.get(kind, ())
    return sum(prod(s) * (4 if n.startswith(single) else 2) for n, s in shapes.items())


@pytest.fixture
def stocked(
    models: Path, deep: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Path, World]:
    """Models for the miniature with SDXL's layers: CLIP vision, and a real face model."""
    (models / "clip_vision" / "c.safetensors").symlink_to(write(tmp_path, "tiny")["clip_vision"])
    real = Path(os.environ["INFINITE_ID_FACE_ROOT"]) / "models"
    for pack in real.iterdir():
        (models / "insightface" / "models" / pack.name).symlink_to(pack)
    monkeypatch.setattr(ip_adapter, "SDXL", list_layers(deep.unet))
    return models, deep


def test_native_adapter_that_fits_the_model(stocked: tuple[Path, World]) -> None:
    models, deep = stocked
    for name, layers in (("a", dict(list(SDXL.items())[:1])), ("b", list_layers(deep.unet))):
        adapter = Adapter(AdapterConfig(MAPPER, layers))
        formats.save(adapter, models / "infinite_id" / f"{name}.safetensors")
    assert UnifiedLoader.validate_inputs(NATIVE) is True
    patched, encoder, adapter, analysis, info = run(deep.model, NATIVE)
    assert patched is deep.model
    assert adapter.name == "b.safetensors"
    assert encoder.adapter is adapter
    assert encoder.analysis is analysis
    assert isinstance(encoder.clip, comfy.clip_vision.ClipVisionModel)
    assert info.startswith("b.safetensors is Infinite-ID; wants face model")


def test_lora_of_a_strength(stocked: tuple[Path, World]) -> None:
    models, deep = stocked
    tensors = make_file(deep.unet, "FaceID", 128, 64)
    adapter_files.write_safetensors(models / "ipadapter" / "a.safetensors", tensors)
    (pack,) = folders.list_packs()
    patched, encoder, *_, info = run(deep.model, "IP-Adapter FaceID", 0.6, face_pack=pack)
    assert len(patched.patches) == 560
    assert encoder.clip is None
    assert info.endswith(f"Face model: {pack}. LoRA strength: 0.6.")
    assert run(deep.model, "IP-Adapter FaceID", 0.0, face_pack=pack)[0] is deep.model


def test_whole_pictures_need_no_face_model(stocked: tuple[Path, World]) -> None:
    models, deep = stocked
    tensors = make_file(deep.unet, "Plus", 128, 64)
    adapter_files.write_safetensors(models / "ipadapter" / "plus.safetensors", tensors)
    _, encoder, _, analysis, info = run(deep.model, "IP-Adapter Plus")
    assert encoder.analysis is analysis is None
    assert encoder.clip is not None
    assert "Face model: none. LoRA strength: 0." in info


def run(model: Any, preset: str, strength: float = 0.6, **settings: Any) -> Any:
    return UnifiedLoader.execute(model, preset, strength, **settings).result

"""Which parts of a published file a new adapter begins with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pack.bench import adapter_files
from pack.infinite_id.adapters import formats
from pack.infinite_id.adapters.adapter import Adapter, AdapterConfig
from pack.infinite_id.adapters.mappers import MapperConfig
from pack.infinite_id.attention.blocks import SDXL
from pack.infinite_id.training.warm_start import Taken, take_over

WIDTH = 64
LAYERS = "K', V' of 70 layers"
FRESH_CLIP = "CLIP mapper (the file has none)"
FRESH_FACE = "face mapper (the file has none)"


def make(**changes: int) -> Adapter:
    torch.manual_seed(0)
    config = MapperConfig(**{"token_width": WIDTH, "clip_hidden": 48, **changes})
    return Adapter(AdapterConfig(config, SDXL))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("FaceID", Taken((LAYERS, "face mapper"), (FRESH_CLIP,), ("LoRA",))),
        ("FaceID PlusV2", Taken((LAYERS, "face mapper"), (FRESH_CLIP,), ("LoRA", "resampler"))),
        ("Plus Face", Taken((LAYERS,), (FRESH_FACE, FRESH_CLIP), ("LoRA", "resampler"))),
        ("InstantID", Taken((LAYERS,), (FRESH_FACE, FRESH_CLIP), ("LoRA", "resampler"))),
    ],
)
def test_what_fits_of_a_published_file_is_taken(kind: str, expected: Taken, tmp_path: Path) -> None:
    tensors = adapter_files.make(kind, WIDTH, lora_rank=1)
    path = adapter_files.write_safetensors(tmp_path / "other.safetensors", tensors)
    adapter, before = make(), make().state_dict()
    assert take_over(adapter, formats.load(path)) == expected
    after = adapter.state_dict()
    for n, (block, _) in enumerate(adapter_files.LAYERS):
        assert (after[f"layers.{block}.to_k.weight"] == 2 * n + 1).all()
        assert (after[f"layers.{block}.to_v.weight"] == 2 * n + 1.5).all()
    for name in (n for n in before if n.startswith("mapper.face.")):
        own = before[name]
        if "face mapper" in expected.taken:
            own = tensors[name.replace("mapper.face", "image_proj")].float()
        assert torch.equal(after[name], own), name
    assert all(torch.equal(after[n], before[n]) for n in before if n.startswith("mapper.clip."))


def test_all_of_a_native_file_is_taken(tmp_path: Path) -> None:
    source = make()
    for p in source.parameters():
        torch.nn.init.normal_(p)
    formats.save(source, tmp_path / "mine.safetensors", torch.float32)
    adapter = make()
    taken = take_over(adapter, formats.load(tmp_path / "mine.safetensors"))
    assert taken == Taken((LAYERS, "face mapper", "CLIP mapper"), (), ())
    assert all(torch.equal(x, source.state_dict()[n]) for n, x in adapter.state_dict().items())


def test_a_part_of_other_widths_is_fresh_and_the_widths_are_told() -> None:
    source, adapter = make(face_hidden=32), make()
    before = adapter.mapper.face.state_dict()["proj.0.weight"].clone()
    taken = take_over(adapter, source)
    assert taken.taken == (LAYERS, "CLIP mapper")
    assert taken.fresh == ("face mapper (its proj.0.weight is (32, 512) and not (1024, 512))",)
    assert torch.equal(adapter.mapper.face.state_dict()["proj.0.weight"], before)

"""What adapter files are taken for, and what becomes of those that are not what they should be."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from pack.bench import adapter_files
from pack.bench.adapter_files import FILES, LAYERS, NAMES, Tensors
from pack.infinite_id.adapters import formats
from pack.infinite_id.adapters.adapter import Adapter
from pack.infinite_id.adapters.formats import FormatError, Kind
from pack.infinite_id.adapters.mappers.ip_adapter import FaceIDPlusConfig
from pack.infinite_id.attention.blocks import SDXL
from pack.tests.unit.corrupt_files import CASES, MAXIMUM_BYTES, MAXIMUM_SECONDS, Usage

LAYOUTS = ("safetensors", "adapter_modules", "bin")
ALIKE = {
    "FaceID Portrait unnorm": ("InstantID", Kind.PORTRAIT_UNNORM),
    "Plus": ("Plus Face", Kind.PLUS),
    "Plus Composition": ("Plus Face", Kind.COMPOSITION),
}
"""Kinds whose tensors another kind has: what they are taken for by themselves, and the choice."""


@cache
def make(kind: str, lora_rank: int = 0) -> Tensors:
    return adapter_files.make(kind, 64 if kind == "FaceID PlusV2" else 8, lora_rank=lora_rank)


def write(folder: Path, tensors: Tensors, layout: str) -> Path:
    """One of the three layouts in use, under a name that says nothing, or something else."""
    if layout == "bin":
        return adapter_files.write_bin(folder / "ip-adapter_sd15.bin", tensors)
    if layout == "adapter_modules":
        tensors = {n.replace("ip_adapter.", "adapter_modules."): x for n, x in tensors.items()}
    return adapter_files.write_safetensors(folder / "instantid.safetensors", tensors)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", NAMES)
def test_recognised_by_contents(tmp_path: Path, kind: str, layout: str) -> None:
    """Every kind in every layout, under a misleading name; weights arrive bit by bit, in order."""
    path = write(tmp_path, make(kind), layout)
    adapter = formats.load(path)
    assert adapter.config.mapper.recipe.name == NAMES[ALIKE[kind][0] if kind in ALIKE else kind]
    assert adapter.name == path.name
    assert adapter.config.layers == SDXL
    assert adapter.lora is None
    check_weights(adapter, make(kind))


@pytest.mark.parametrize("kind", NAMES)
def test_recognised_under_the_published_name(tmp_path: Path, kind: str) -> None:
    path = adapter_files.write_safetensors(
        (tmp_path / FILES[kind]).with_suffix(".safetensors"), make(kind)
    )
    for adapter in (formats.load(path), formats.inspect(path)):
        assert adapter.config.mapper.recipe.name == NAMES[kind]


@pytest.mark.parametrize("kind", ALIKE)
def test_the_choice_beats_the_name(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, make(kind), "safetensors")
    alike, choice = ALIKE[kind]
    assert formats.load(path, kind=choice).config.mapper.recipe.name == NAMES[kind]
    named = path.rename(tmp_path / FILES[kind].replace(".bin", ".safetensors"))
    chosen = formats.load(named, kind=Kind(NAMES[alike]))
    assert chosen.config.mapper.recipe.name == NAMES[alike]
    with pytest.raises(FormatError, match=r"cannot be .* Set kind to 'auto'"):
        formats.load(named, kind=Kind.PLUS if "FaceID" in kind else Kind.INSTANT_ID)


def test_no_choice_for_a_kind_that_tensors_tell(tmp_path: Path) -> None:
    path = write(tmp_path, make("FaceID"), "safetensors")
    with pytest.raises(FormatError, match="is IP-Adapter FaceID and cannot be 'InstantID'"):
        formats.load(path, kind=Kind.INSTANT_ID)


def check_weights(adapter: Adapter, tensors: Tensors) -> None:
    """The mapper's weights are the file's, and the n-th K', V' sit at the n-th block."""
    for name, weight in adapter.mapper.state_dict().items():
        assert torch.equal(weight, tensors[f"image_proj.{name}"])
    for n, (block, width) in enumerate(LAYERS):
        layer = adapter.layers[block]
        for projection, number in ((layer.to_k, 2 * n + 1), (layer.to_v, 2 * n + 1.5)):
            assert projection.weight.shape == (width, adapter.config.mapper.token_width)
            assert (projection.weight == number).all()
    assert all(x.dtype == torch.float16 for x in adapter.parameters())
    assert not any(x.requires_grad for x in adapter.parameters())


def test_name_does_not_matter(tmp_path: Path) -> None:
    """The same file under two names is the same adapter but for the name."""
    first = formats.load(write(tmp_path, make("InstantID"), "safetensors"))
    again = (tmp_path / "instantid.safetensors").rename(tmp_path / "faceid_plusv2.safetensors")
    second = formats.load(again)
    assert second.config == first.config
    assert second.name != first.name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lora_is_kept_apart(tmp_path: Path, layout: str) -> None:
    """FaceID's 140 LoRA entries become no layers: the adapter's weights are those without them."""
    rank = 2
    adapter = formats.load(write(tmp_path, make("FaceID", rank), layout))
    check_weights(adapter, make("FaceID"))
    without = formats.load(write(tmp_path, make("FaceID"), layout))
    assert adapter.state_dict().keys() == without.state_dict().keys()
    assert adapter.lora is not None
    assert len(adapter.lora.tensors) == 140 * 4 * 2
    for n, (name, width) in enumerate(LAYERS):
        for number, attention in ((2 * n, "attn1"), (2 * n + 1, "attn2")):
            for projection in ("q", "k", "v", "out"):
                context = attention == "attn2" and projection in "kv"
                reads = adapter_files.CONTEXT_WIDTH if context else width
                pair = [
                    x
                    for (block, a, p, _), x in adapter.lora.tensors.items()
                    if (str(block), a, p) == (name, attention, projection)
                ]
                assert {tuple(x.shape) for x in pair} == {(rank, reads), (width, rank)}, number


def test_lora_under_the_names_that_the_host_reads(tmp_path: Path) -> None:
    adapter = formats.load(write(tmp_path, make("FaceID", 2), "safetensors"))
    assert adapter.lora is not None
    names = set(adapter.lora.to_state_dict())
    assert len(names) == 140 * 4 * 2
    for name in (
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
        "lora_unet_middle_block_1_transformer_blocks_9_attn2_to_k.lora_up.weight",
        "lora_unet_output_blocks_5_1_transformer_blocks_1_attn1_to_out_0.lora_up.weight",
    ):
        assert name in names


def test_shortcut_scale_reaches_plusv2(tmp_path: Path) -> None:
    path = write(tmp_path, make("FaceID PlusV2"), "safetensors")
    for scale in (0.0, 0.5, 1.0):
        mapper = formats.load(path, shortcut_scale=scale).config.mapper
        assert isinstance(mapper, FaceIDPlusConfig)
        assert mapper.scale == scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_floats(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: x.to(dtype) for name, x in make("FaceID").items()}
    adapter = formats.load(write(tmp_path, tensors, "safetensors"))
    assert {x.dtype for x in adapter.parameters()} == {dtype}


def test_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none.safetensors", "none.bin"):
        with pytest.raises(FileNotFoundError):
            formats.load(tmp_path / name)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch, about odd tensors
@pytest.mark.parametrize("case", CASES)
def test_corrupt(tmp_path: Path, case: str) -> None:
    """Each ends in a FormatError that names the file; quickly, in little memory, nothing executed.

    `said` is part of what the user reads.
    """
    marker = tmp_path / "executed"
    path, said = CASES[case](tmp_path, marker)
    with Usage() as usage, pytest.raises(FormatError) as caught:
        formats.load(path)
    assert type(caught.value) is FormatError
    assert path.name in str(caught.value)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 5000
    assert not marker.exists()
    assert usage.seconds < MAXIMUM_SECONDS
    assert usage.bytes < MAXIMUM_BYTES


def test_the_marker_would_be_made_by_an_ordinary_load(tmp_path: Path) -> None:
    """The files with code do run it where they are unpickled carelessly."""
    for case in ("pickle with code", "pickle with code inside a dictionary"):
        marker = tmp_path / "executed"
        path, _ = CASES[case](tmp_path, marker)
        torch.load(path, weights_only=False)
        assert marker.exists()
        marker.unlink()

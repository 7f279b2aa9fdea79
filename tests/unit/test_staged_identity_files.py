"""Files of staged words: from strangers, hostile, damaged."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from pack.infinite_id.staged_identity import staged_file
from pack.infinite_id.staged_identity.stages import Words, find_stage, list_starts
from pack.infinite_id.tensor_files import FormatError
from pack.infinite_id.words.files import Origin
from pack.tests.unit.corrupt_files import MAXIMUM_BYTES, Usage
from safetensors.torch import save_file
from torch import Tensor

HEAD = {"format": staged_file.KIND.format, "version": "1", "tables": "{}", "provenance": "{}"}
ORIGIN = Origin("r", {"clip_l": "1", "clip_g": "2"}, {"steps": 3})


def make_words() -> Words:
    keys, values = (
        {"clip_l": torch.randn(5, 1, 8), "clip_g": torch.randn(5, 1, 12)} for _ in range(2)
    )
    return Words(keys, values)


def test_words_come_back(tmp_path: Path) -> None:
    path = tmp_path / "people" / "anna.safetensors"
    staged = staged_file.Staged(make_words(), ORIGIN)
    staged_file.save(staged, path, replaces=False)
    again = staged_file.load(path)
    for side in ("keys", "values"):
        own, other = getattr(staged.words, side), getattr(again.words, side)
        assert own.keys() == other.keys()
        assert all(torch.equal(x, other[key]) for key, x in own.items())
    assert again.origin == ORIGIN
    assert staged_file.read_run(path) == "r"
    with pytest.raises(FileExistsError):
        staged_file.save(staged, path, replaces=False)


def test_words_that_are_not_numbers_are_not_written(tmp_path: Path) -> None:
    words = make_words()
    words.values["clip_g"][2, 0, 3] = torch.nan
    with pytest.raises(FormatError, match=r"clip_g.value.*not numbers.*lower learning_rate"):
        staged_file.save(staged_file.Staged(words, ORIGIN), tmp_path / "a.safetensors", False)
    assert not list(tmp_path.iterdir())


def both(x: Tensor, key: str = "clip_l") -> dict[str, Tensor]:
    return {f"{key}.key": x, f"{key}.value": x.clone()}


ONE = torch.zeros(5, 1, 8)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (both(ONE), {}, "no staged words that Learn Staged Identity"),
        (both(ONE), {**HEAD, "version": "2"}, "another version"),
        (both(ONE), {**HEAD, "format": "stable-identity-words"}, "'embedding:' and its name"),
        ({"clip_l.key": ONE}, HEAD, "'key' and 'value'"),
        ({"clip_l": ONE}, HEAD, "'key' and 'value'"),
        ({"clip_l.key": ONE, "clip_l.value": ONE[:4].clone()}, HEAD, "same shape"),
        (both(ONE) | both(torch.zeros(4, 1, 8), "clip_g"), HEAD, "same shape"),
        (both(ONE, "t5xxl"), HEAD, "for each of clip_l, clip_g, clip_h"),
        (both(ONE, "../clip_l"), HEAD, "for each of"),
        (both(torch.zeros(5, 8)), HEAD, "stages, rows, width"),
        (both(torch.zeros(0, 1, 8)), HEAD, "at most 100 stages"),
        (both(torch.zeros(101, 1, 8)), HEAD, "at most 100 stages"),
        (both(torch.zeros(5, 33, 8)), HEAD, "32 rows"),
        (both(torch.zeros(5, 1, 0)), HEAD, "width"),
        (both(torch.zeros(1, 1, 8193)), HEAD, "width"),
        (both(torch.zeros(5, 1, 8, dtype=torch.int64)), HEAD, "not float32"),
        (both(torch.full((5, 1, 8), torch.inf)), HEAD, "not numbers"),
        (both(ONE), {**HEAD, "tables": "[1"}, "metadata is damaged"),
        (both(ONE), {**HEAD, "provenance": "3"}, "metadata is damaged"),
    ],
)
def test_files_from_strangers(
    tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], message: str
) -> None:
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata)
    with pytest.raises(FormatError, match=message):
        staged_file.load(path)
    assert staged_file.read_run(path) is None


@pytest.mark.parametrize("data", [b"", b"text", (1 << 40).to_bytes(8, "little") + b"{}"])
def test_files_that_are_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(FormatError):
        staged_file.load(path)


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(both(torch.zeros(5, 1 << 12, 8000)), path, HEAD)
    with Usage() as usage, pytest.raises(FormatError, match="32 rows"):
        staged_file.load(path)
    assert usage.bytes < MAXIMUM_BYTES


@pytest.mark.parametrize("count", [1, 3, 5, 7, 10])
def test_stages_are_equal_segments(count: int) -> None:
    for time in range(1000):
        assert find_stage(Fraction(time, 1000), count) == count * time // 1000


def test_stages_of_several_people_begin_where_either_does() -> None:
    assert [str(start) for start in list_starts([2, 3, 1])] == ["0", "1/3", "1/2", "2/3"]


def test_the_mean_of_equal_rows_is_these_rows() -> None:
    for count in (3, 5, 7, 10):
        row = torch.randn(1, 1, 8)
        rows = {"clip_l": row.expand(count, -1, -1)}
        assert torch.equal(Words(rows, rows).mean()["clip_l"], row[0])
    words = make_words()
    both_sides = torch.cat([words.keys["clip_l"], words.values["clip_l"]])
    torch.testing.assert_close(words.mean()["clip_l"], both_sides.mean(dim=0))

"""Embedding and mapper files, and names: from strangers, hostile, taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pack.infinite_id.stable_identity import mapper_file, word_file
from pack.infinite_id.stable_identity.celebs import CelebSpace
from pack.infinite_id.stable_identity.keep import choose_place, keep
from pack.infinite_id.stable_identity.mapper import Landing, new_mapper
from pack.infinite_id.stable_identity.mapper_file import Learned
from pack.infinite_id.stable_identity.word_file import Words
from pack.infinite_id.tensor_files import FormatError
from pack.infinite_id.words.naming import IfTaken, TakenError, check_name, find_named
from safetensors.torch import load_file, save_file

TABLES = {"clip_l": "1", "clip_g": "2"}


def make_words(run: str = "r", seed: int = 0, **changes: Any) -> Words:
    random = torch.Generator().manual_seed(seed)
    rows = {"clip_l": torch.randn(2, 8, generator=random), "clip_g": torch.randn(2, 12)}
    given = {"rows": rows, "tables": TABLES, "run": run, "provenance": {"steps": 3}}
    return Words(**{**given, **changes})


def make_learned(landing: Landing = Landing.JOINT) -> Learned:
    spaces = {"clip_l": CelebSpace(torch.ones(2, 8), torch.ones(2, 8))}
    return Learned(new_mapper(5, spaces, landing, 1), {"clip_l": "1"}, "net 1")


# --- Embeddings -------------------------------------------------------------------------------


def test_words_come_back(tmp_path: Path) -> None:
    path = tmp_path / "people" / "anna.safetensors"
    words = make_words()
    word_file.save(words, path, replaces=False)
    again = word_file.load(path)
    assert again.rows.keys() == words.rows.keys()
    assert all(torch.equal(again.rows[key], x) for key, x in words.rows.items())
    assert (again.tables, again.run, again.provenance) == (TABLES, "r", {"steps": 3})
    assert {*load_file(path)} == {"clip_l", "clip_g"}, "the host takes any other tensor for one"
    assert [file.name for file in path.parent.iterdir()] == ["anna.safetensors"]
    with pytest.raises(FileExistsError):
        word_file.save(words, path, replaces=False)


def test_words_that_are_not_numbers_are_not_written(tmp_path: Path) -> None:
    words = make_words(rows={"clip_l": torch.full((2, 8), float("nan"))})
    with pytest.raises(FormatError, match=r"not numbers.*lower learning_rate"):
        word_file.save(words, tmp_path / "a.safetensors", replaces=False)
    assert not list(tmp_path.iterdir())


HEAD = {"format": word_file.KIND.format, "version": "1", "tables": "{}", "provenance": "{}"}


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"clip_l": torch.zeros(2, 8)}, {}, "no embedding that"),
        ({"clip_l": torch.zeros(2, 8)}, {**HEAD, "version": "2"}, "another version"),
        ({"clip_l": torch.zeros(3, 8)}, HEAD, "2 rows for each"),
        ({"clip_l": torch.zeros(2, 9000)}, HEAD, "2 rows for each"),
        ({"t5xxl": torch.zeros(2, 8)}, HEAD, "2 rows for each"),
        ({"clip_l": torch.zeros(16)}, HEAD, "2 rows for each"),
        ({"clip_l": torch.zeros(2, 8, dtype=torch.int64)}, HEAD, "not float32"),
        ({"clip_l": torch.full((2, 8), torch.inf)}, HEAD, "not numbers"),
        ({"clip_l": torch.zeros(2, 8)}, {**HEAD, "tables": "[1"}, "metadata is damaged"),
        ({"clip_l": torch.zeros(2, 8)}, {**HEAD, "provenance": "3"}, "metadata is damaged"),
    ],
)
def test_files_from_strangers(
    tmp_path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str], message: str
) -> None:
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata)
    with pytest.raises(FormatError, match=message):
        word_file.load(path)
    assert word_file.read_run(path) is None


@pytest.mark.parametrize("data", [b"", b"text", (1 << 40).to_bytes(8, "little") + b"{}"])
def test_files_that_are_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    for load in (word_file.load, mapper_file.load):
        with pytest.raises(FormatError):
            load(path)


def test_mixes_lie_between() -> None:
    a, b = make_words(seed=1), make_words(seed=2)
    mixed = word_file.mix(a, b, 0.25, "m")
    for key in a.rows:
        expected = 0.75 * a.rows[key] + 0.25 * b.rows[key]
        torch.testing.assert_close(mixed.rows[key], expected)
    assert torch.equal(word_file.mix(a, b, 0.0, "m").rows["clip_l"], a.rows["clip_l"])
    with pytest.raises(FormatError, match=r"different CLIPs.*same model"):
        word_file.mix(a, make_words(tables={"clip_l": "3"}), 0.5, "m")


# --- Mappers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("landing", Landing)
def test_mappers_come_back(tmp_path: Path, landing: Landing) -> None:
    path = tmp_path / "a.safetensors"
    learned = make_learned(landing)
    mapper_file.save(learned, path)
    again = mapper_file.load(path)
    face = torch.randn(1, 5)
    assert torch.equal(again.mapper(face)["clip_l"], learned.mapper(face)["clip_l"])
    assert (again.tables, again.face_encoder) == (learned.tables, learned.face_encoder)
    assert again.digest() == learned.digest()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"face_width": 10**9}, "metadata is damaged"),
        ({"face_width": True}, "metadata is damaged"),
        ({"widths": {}}, "metadata is damaged"),
        ({"widths": {"../clip": 8}}, "metadata is damaged"),
        ({"widths": {"clip_l": 9}}, "tensors do not fit"),
        ({"landing": "elsewhere"}, "metadata is damaged"),
        ({"landing": "none"}, "tensors do not fit"),
    ],
)
def test_hostile_mappers(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.safetensors"
    learned = make_learned()
    config = {"face_width": 5, "widths": {"clip_l": 8}, "landing": "joint"}
    metadata = {
        "format": mapper_file.FORMAT,
        "version": "1",
        "config": json.dumps({**config, **changes}),
        "tables": "{}",
        "face_encoder": '"x"',
    }
    save_file(dict(learned.mapper.state_dict()), path, metadata)
    with pytest.raises(FormatError, match=message):
        mapper_file.load(path)


# --- Names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("anna", "anna"),
        (" people/anna ", "people/anna"),
        ("people\\anna", "people/anna"),
        ("anna.safetensors", "anna"),
        ("Zoë-2_b.v3", "Zoë-2_b.v3"),
    ],
)
def test_names_that_a_prompt_can_say(text: str, name: str) -> None:
    assert check_name(text) == name


@pytest.mark.parametrize(
    "text",
    ["", " ", ".", "..", "../a", "a/../b", "/a", "a//b", "a/", "c:/a", "a b", "a:1", "(a)", "a,b",
     "<a>", "[a]", ".a", "a.", "-a", "a\x00", "nul", "con.x", "people/aux", "x" * 121, "*"],
)  # fmt: skip
def test_hostile_names(text: str) -> None:
    with pytest.raises(TakenError, match=r"give letters, digits.*people/anna"):
        check_name(text)


def test_what_the_host_could_take_for_a_name(tmp_path: Path) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    for path in ("one/a.pt", "two/deep/a.safetensors", "two/a/b.bin", "one/c"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in find_named(roots, "a")] == [
        "one/a.pt",
        "two/deep/a.safetensors",
    ]
    assert len(find_named(roots, "a/b")) == 1
    assert len(find_named(roots, "c")) == 1
    assert find_named(roots, "d") == []


def place(tmp_path: Path, name: str, if_taken: IfTaken, run: str = "r") -> str:
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        root.mkdir(exist_ok=True)
    found = choose_place(roots, tmp_path / "mappers", name, if_taken, run)
    assert found.words.is_relative_to(roots[0])
    assert found.mapper.is_relative_to(tmp_path / "mappers")
    return found.name


def test_taken_names(tmp_path: Path) -> None:
    assert place(tmp_path, "p/a", IfTaken.STOP) == "p/a"
    path = tmp_path / "one" / "p" / "a.safetensors"
    word_file.save(make_words("r"), path, replaces=False)
    assert place(tmp_path, "p/a", IfTaken.STOP) == "p/a", "the same run goes on"
    with pytest.raises(TakenError, match="already"):
        place(tmp_path, "p/a", IfTaken.STOP, "other")
    assert place(tmp_path, "p/a", IfTaken.NUMBER, "other") == "p/a_2"
    assert place(tmp_path, "p/a", IfTaken.REPLACE, "other") == "p/a"
    (tmp_path / "two" / "p").mkdir()
    (tmp_path / "two" / "p" / "a.pt").touch()  # a prompt could read this one instead
    with pytest.raises(TakenError):
        place(tmp_path, "p/a", IfTaken.REPLACE, "other")
    with pytest.raises(TakenError):
        place(tmp_path, "p/a", IfTaken.STOP, "r")


def test_a_strangers_embedding_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    path = tmp_path / "one" / "a.safetensors"
    save_file({"clip_l": torch.zeros(2, 8)}, path)
    for policy in (IfTaken.STOP, IfTaken.REPLACE):
        with pytest.raises(TakenError):
            place(tmp_path, "a", policy, "")
    assert place(tmp_path, "a", IfTaken.NUMBER, "") == "a_2"


def test_both_files_are_kept(tmp_path: Path) -> None:
    found = choose_place([tmp_path / "e"], tmp_path / "m", "p/a.b", IfTaken.STOP, "r")
    keep(found, make_words(), make_learned())
    keep(found, make_words(), make_learned())
    assert found.prompt == "embedding:p/a.b"
    assert word_file.load(tmp_path / "e" / "p" / "a.b.safetensors").run == "r"
    assert mapper_file.load(tmp_path / "m" / "p" / "a.b.safetensors").face_encoder == "net 1"

"""The trainer's settings: a commented file holds all of them, and a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomllib
from pack.infinite_id.errors import UserError
from pack.infinite_id.training.settings import Settings, example, read


def test_the_example_holds_every_default_and_explains_it(tmp_path: Path) -> None:
    assert tomllib.loads(example()) == Settings().to_json()
    path = tmp_path / "train.toml"
    path.write_text(example(), encoding="utf-8")
    assert read(path) == Settings()
    lines = [line for line in example().splitlines() if " = " in line]
    assert all("  # " in line for line in lines)


def test_what_is_not_in_the_file_keeps_its_default(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text("[optimiser]\nrate = 1\n", encoding="utf-8")
    settings = read(path, {"run.steps": "5", "run.precision": "fp32", "optimiser.warm_up": "2"})
    assert (settings.optimiser.rate, settings.optimiser.warm_up) == (1.0, 2)
    assert (settings.run.steps, settings.run.precision) == (5, "fp32")
    assert settings.data == Settings().data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\nstep = 1", r"run\.step: there is no such setting; there are steps,"),
        ("[runs]\nsteps = 1", r"no table \[runs\]; there are adapter, data"),
        ("steps = 1", r"no table \[steps\]"),
        ("[run]\nsteps = 1.5", r"run\.steps is 1\.5; it must be a whole number"),
        ("[run]\nsteps = true", r"run\.steps is True; it must be a whole number"),
        ("[run]\nsteps = 0", r"run\.steps is 0; it must be at least 1"),
        ("[run]\nsharded = 1", r"run\.sharded is 1; it must be a true or false"),
        ("[data]\ndropped = 1.5", r"data\.dropped is 1\.5; it must be at least 0 and at most 1"),
        ("[data]\ndropped = nan", r"data\.dropped is nan"),
        ('[run]\nprecision = "fp16"', r"run\.precision is 'fp16'; it must be one of"),
        ("[run]\nbatch = 6\nat_once = 4", r"run\.batch is 6, and must be a multiple"),
        ("[run", r"cannot be read as TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "train.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.toml cannot be read"):
        read(tmp_path / "train.toml")

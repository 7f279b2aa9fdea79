"""StableIdentity's command on the miniature: once as users run it, else within this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pack.dev.cache import ROOT
from pack.gallery.miniature import NAME, PEOPLE, WEIGHTS
from pack.infinite_id.stable_identity import command, word_file
from pack.infinite_id.training import host_follow
from pack.tests.host.learners import stop_at_the_third_step, use_command

SCRIPT = Path(__file__).with_name("words_command.py")
INPUTS = ROOT / "workflows" / "inputs"
PACK = WEIGHTS / "insightface" / "models" / "miniature"
STEPS = 6
MODELS = [
    *("--model", str(WEIGHTS / f"{NAME}.safetensors"), "--size", "128"),
    *("--face-pack", str(PACK), "--provider", "CPU", "--detection-size", "320"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where names, embeddings, mappers and runs are; the host is there already."""
    use_command(monkeypatch, tmp_path)
    (tmp_path / "names.txt").write_text(PEOPLE)
    return tmp_path


def learn(folder: Path, name: str, *more: str) -> list[str]:
    photo, names = str(INPUTS / "face.jpg"), str(folder / "names.txt")
    own = ["--name", name, "--names", names, "--steps", str(STEPS), *more]
    return ["learn", photo, *MODELS, "--runs", str(folder / "runs"), *own]


def read(folder: Path, name: str) -> word_file.Words:
    return word_file.load(folder / "embeddings" / f"{name}.safetensors")


def same(a: word_file.Words, b: word_file.Words) -> bool:
    return all(torch.equal(a.rows[key], x) for key, x in b.rows.items())


def test_learn_words_and_mix(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(learn(folder, "p/anna")) == 0
    told = capsys.readouterr().out
    assert "6 steps on 1 photos" in told
    assert "write embedding:p/anna into a prompt" in told
    assert {*read(folder, "p/anna").rows} == {"clip_l", "clip_g"}
    further = ["words", str(INPUTS / "face_2.jpg"), *MODELS, "--learned", "p/anna"]
    assert command.main([*further, "--name", "p/other"]) == 0
    assert "no training" in capsys.readouterr().out
    assert not same(read(folder, "p/anna"), read(folder, "p/other"))
    assert command.main(["mix", "p/anna", "p/other", "--share", "0", "--name", "mixed"]) == 0
    assert same(read(folder, "mixed"), read(folder, "p/anna"))
    assert command.main(["mix", "p/anna", "p/other", "--share", "2", "--name", "x"]) == 1


def test_a_stopped_run_goes_on_bit_for_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.main(learn(folder, "whole", "--seed", "1")) == 0

    again = learn(folder, "anna", "--seed", "1")
    again[again.index("--runs") + 1] = str(folder / "other")
    with monkeypatch.context() as patch:
        patch.setattr(host_follow, "watch_signals", stop_at_the_third_step)
        assert command.main(again) == 3
    assert read(folder, "anna").provenance["steps"] == 3
    assert command.main(again) == 0
    assert same(read(folder, "anna"), read(folder, "whole"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--names", os.devnull), "statistics need 16"),  # the shipped names
        (("--name", "../anna"), "give letters, digits"),
        (("--steps", "0"), "at least 1"),
        (("--model", "gone"), "there is no file gone"),
        (("--face-pack", ""), "Give a face encoder"),
        (("--held-out", "gone.jpg"), "gone.jpg cannot be read"),
        (("--face-mask", str(INPUTS / "couple.jpg")), "has not the size of its photo"),
    ],
)
def test_errors_say_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], message: str
) -> None:
    arguments = [*learn(folder, "anna"), *change]  # the last one counts
    assert command.main(arguments) == 1
    assert message in capsys.readouterr().err


def test_words_need_somebody_who_was_learnt(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = str(folder / "text.jpg")
    Path(photo).write_text("no picture")
    arguments = ["words", photo, *MODELS, "--learned", "anna", "--name", "x"]
    assert command.main(arguments) == 1
    assert "Learn the person first" in capsys.readouterr().err


@pytest.mark.nightly
def test_as_users_run_it(tmp_path: Path) -> None:
    """From another directory, by its path, with folders named in a file of model paths."""
    paths = tmp_path / "paths.yaml"
    paths.write_text(
        f"own:\n  is_default: true\n  base_path: {tmp_path}\n  embeddings: embeddings\n"
        "  infinite_id_mappers: mappers\n"
    )
    (tmp_path / "names.txt").write_text(PEOPLE)
    host = ["--host", os.environ["COMFYUI_PATH"], "--cpu", "--model-paths", str(paths)]
    run = [sys.executable, str(SCRIPT), *learn(tmp_path, "anna"), *host]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "write embedding:anna into a prompt" in done.stdout
    assert {*read(tmp_path, "anna").rows} == {"clip_l", "clip_g"}
    assert (tmp_path / "mappers" / "anna.safetensors").is_file()

"""The command of staged words on the miniature, within this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pack.dev.cache import ROOT
from pack.gallery.miniature import NAME, WEIGHTS
from pack.infinite_id.staged_identity import command, staged_file
from pack.infinite_id.training import host_follow
from pack.tests.host.learners import stop_at_the_third_step, use_command

PHOTO = ROOT / "workflows" / "inputs" / "face.jpg"
PACK = WEIGHTS / "insightface" / "models" / "miniature"
STEPS = 6


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where words, embeddings and runs are; the host is there already."""
    use_command(monkeypatch, tmp_path)
    return tmp_path


def learn(folder: Path, name: str, *more: str) -> list[str]:
    model = ["--model", str(WEIGHTS / f"{NAME}.safetensors"), "--size", "128"]
    words = ["--prompt", "a photo of V*", "--noun", "man", "--runs", str(folder / "runs")]
    own = ["--name", name, "--steps", str(STEPS), *more]
    return ["learn", str(PHOTO), *model, *words, *own]


def read(folder: Path, name: str) -> staged_file.Staged:
    return staged_file.load(folder / "infinite_id_staged" / f"{name}.safetensors")


def same(a: staged_file.Staged, b: staged_file.Staged) -> bool:
    return all(torch.equal(x, b.words.keys[key]) for key, x in a.words.keys.items())


def test_learn_and_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces = ["--face-pack", str(PACK), "--provider", "CPU", "--detection-size", "320"]
    other = ["--masked", "--held-out", str(PHOTO.with_name("face_2.jpg"))]
    assert command.main(learn(folder, "p/anna", *faces, *other, "--stages", "3")) == 0
    told = capsys.readouterr().out
    assert "one face; face mask: an oval by the landmarks" in told
    assert "6 steps on 1 photos" in told
    assert "likeness" in told
    assert read(folder, "p/anna").words.stages == 3
    assert command.main(["export", "p/anna", "--name", "anna"]) == 0
    assert "write embedding:anna into a prompt" in capsys.readouterr().out
    assert (folder / "embeddings" / "anna.safetensors").is_file()
    assert command.main(["export", "gone", "--name", "anna"]) == 1
    assert "Learn the person first" in capsys.readouterr().err


def test_a_stopped_run_goes_on_bit_for_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.main(learn(folder, "whole", "--no-checkpointing")) == 0

    again = [*learn(folder, "anna", "--no-checkpointing"), "--runs", str(folder / "other")]
    with monkeypatch.context() as patch:
        patch.setattr(host_follow, "watch_signals", stop_at_the_third_step)
        assert command.main(again) == 3
    assert read(folder, "anna").origin.provenance["steps"] == 3
    assert command.main(again) == 0
    assert same(read(folder, "anna"), read(folder, "whole"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--steps", "0"), "--steps is 0; it must be 1 or more"),
        (("--stages", "101"), "100 is the most"),
        (("--attention", "-1"), "--attention is -1.0"),
        (("--noun", "blorp"), "one token"),
        (("--prompt", "a photo"), "must say 'V*'"),
        (("--name", "../anna"), "give letters, digits"),
        (("--model", "gone"), "there is no file gone"),
        (("--held-out", "gone.jpg"), "gone.jpg cannot be read"),
        (("--held-out", str(PHOTO)), "A face encoder is needed"),
        (("--face-mask", str(PHOTO)), "'masked' is off"),
        (("--masked",), "Nothing says where the face is"),
    ],
)
def test_errors_say_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], message: str
) -> None:
    assert command.main([*learn(folder, "anna"), *change]) == 1  # the last one counts
    assert message in capsys.readouterr().err

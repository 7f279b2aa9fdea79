"""Runs of the trainer: exact resume, several processes, what is kept when something breaks."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pack.bench.adapter_files import make, write_safetensors
from pack.infinite_id.adapters import formats
from pack.infinite_id.errors import UserError
from pack.infinite_id.files import file_digest
from pack.infinite_id.host import models
from pack.infinite_id.training import checkpoints, host_pictures, host_train, loop
from pack.infinite_id.training.data import Pairs, Prepared
from pack.infinite_id.training.draws import Draw
from pack.infinite_id.training.export import export
from pack.infinite_id.training.processes import Alone
from pack.infinite_id.training.settings import Settings, parse
from pack.tests.host.training_data import write_data
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = Path(__file__).with_name("training_command.py")
TABLES: dict[str, Any] = {
    "data": {"held_out": 0.2},
    "pictures": {"people": 0},
    "adapter": {"face_hidden": 16, "clip_hidden": 16},
    "optimiser": {"rate": 1e-3, "warm_up": 4, "average": 0.9},
    "run": {
        "steps": 12,
        "batch": 4,
        "at_once": 2,
        "precision": "fp32",
        "checkpointing": False,
        "log_every": 1,
        "save_every": 4,
        "validate_every": 6,
        "validation": 5,
        "tensorboard": False,
    },
}
needs_accelerate = pytest.mark.skipif(
    find_spec("accelerate") is None, reason="accelerate is not installed: requirements/training.txt"
)


@pytest.fixture(scope="module")
def files(worlds: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of the least UNet, and data prepared for it."""
    from pack.miniature.random_weights import write

    worlds("least")  # registers the miniature
    folder = tmp_path_factory.mktemp("training")
    checkpoint = write(folder, "least")["checkpoint"]
    return checkpoint, write_data(folder / "data", checkpoint)


def settings(tables: dict[str, Any] | None = None, **run: Any) -> Settings:
    return parse({**TABLES, **(tables or {}), "run": TABLES["run"] | run}, "test")


@pytest.fixture(scope="module")
def train(files: tuple[Path, Path]) -> Callable[..., dict[str, torch.Tensor]]:
    """Train in this process; the last checkpoint's tensors."""
    checkpoint, data = files

    def train(out: Path, **run: Any) -> dict[str, torch.Tensor]:
        host_train.train(data, str(checkpoint), out, settings(**run))
        return dict(checkpoints.load_newest(out).tensors)

    return train


@pytest.fixture(scope="module")
def whole(train: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted."""
    out = tmp_path_factory.mktemp("whole")
    train(out)
    return out


def newest(out: Path) -> dict[str, torch.Tensor]:
    return dict(checkpoints.load_newest(out).tensors)


def assert_same(own: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert own.keys() == other.keys()
    assert own
    assert all(torch.equal(own[name], other[name]) for name in own)


def difference(own: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of two runs' adapters, relative to the weights."""
    names = [name for name in own if name.startswith("adapter.")]
    assert names
    return max(float((own[n] - other[n]).norm() / other[n].norm()) for n in names)


def at_step(out: Path, step: int) -> dict[str, torch.Tensor]:
    return dict(checkpoints.load(checkpoints.path_of(out, step)).tensors)


def lines(out: Path, *without: str) -> list[dict[str, Any]]:
    text = (out / "stats.jsonl").read_text(encoding="utf-8")
    found = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in line.items() if k not in without} for line in found]


def start(
    files: tuple[Path, Path],
    out: Path,
    *options: str,
    environment: dict[str, str] | None = None,
    verb: tuple[str, ...] = ("train",),
) -> subprocess.Popen[str]:
    """The command in a process of its own, from a directory that has nothing to do with it."""
    checkpoint, data = files
    path = out.with_suffix(".toml")
    run = [f"{k} = {json.dumps(v)}" for k, v in TABLES["run"].items()]
    tables = {**TABLES, "run": {}}
    text = "\n".join(
        f"[{t}]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in values.items())
        for t, values in tables.items()
    )
    path.write_text(text + "\n" + "\n".join(run) + "\n", encoding="utf-8")
    command = [sys.executable, str(COMMAND), *verb, str(data), "--model", str(checkpoint)]
    return subprocess.Popen(
        [*command, "--out", str(out), "--settings", str(path), *options],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={**os.environ, **(environment or {})},
    )


def finish(*processes: subprocess.Popen[str]) -> str:
    """Wait for processes that should succeed; what they printed."""
    texts = [process.communicate(timeout=250)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(texts)
    return "\n".join(texts)


# --- Resume -----------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_bit_for_bit(whole: Path, train: Any, tmp_path: Path) -> None:
    """Stopped at random steps by the signal."""
    at = sorted(random.Random(0).sample(range(1, 12), 3))
    backward, steps = loop.Loop._backward, []

    def stop_at(self: loop.Loop, batches: Any) -> Any:
        steps.append(self.trainee.step)
        if self.trainee.step in at:
            at.remove(self.trainee.step)
            os.kill(os.getpid(), signal.SIGTERM)
        return backward(self, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "_backward", stop_at)
        before = signal.getsignal(signal.SIGTERM)
        for _ in range(4):
            train(tmp_path)
        assert signal.getsignal(signal.SIGTERM) is before
    assert steps == list(range(12)), "each step once"
    assert_same(newest(tmp_path), newest(whole))
    assert lines(tmp_path, "steps_per_second") == lines(whole, "steps_per_second")


def test_a_killed_run_goes_on_bit_for_bit(
    whole: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    """SIGKILL at random moments: steps since the last checkpoint are done again."""
    moments, out = random.Random(1), tmp_path / "run"
    for _ in range(2):
        process = start(files, out)
        deadline = time.monotonic() + 100
        least = len(lines(out)) if (out / "stats.jsonl").exists() else 0
        wanted = least + moments.randint(1, 4)
        while time.monotonic() < deadline and process.poll() is None:
            if (out / "stats.jsonl").exists() and len(lines_of_killed(out)) >= wanted:
                break
            time.sleep(0.01)
        process.kill()
        process.communicate()
    finish(start(files, out))
    assert_same(newest(out), newest(whole))
    assert lines(out, "steps_per_second") == lines(whole, "steps_per_second")


def lines_of_killed(out: Path) -> list[str]:
    return (out / "stats.jsonl").read_text(encoding="utf-8").splitlines()


def test_every_step_draws_its_own_samples(files: tuple[Path, Path]) -> None:
    """Randomness is a function of seed, step and sample: the same again, and never a twin."""
    data = Prepared(files[1])
    pairs = Pairs(data, data.split(0.2)[0])
    drawn = [pairs.draw(0, step, range(4), 0.5, 0.1, 1000) for step in range(40)]
    again = [pairs.draw(0, step, [n], 0.5, 0.1, 1000)[0] for step in range(40) for n in range(4)]
    flat = [draw for step in drawn for draw in step]
    assert flat == again
    assert len({draw.noise for draw in flat}) == len(flat)
    assert all(len({data.photos[d.target].bucket for d in step}) == 1 for step in drawn)
    assert {data.photos[d.target].bucket for d in flat} == {(128, 128), (64, 192)}
    people = [(data.photos[d.target].person, data.photos[d.source].person) for d in flat]
    assert all(a == b for a, b in people)
    assert all(d.target != d.source for d in flat)
    assert 0.02 < sum(d.dropped for d in flat) / len(flat) < 0.2
    assert 0.3 < sum(d.mirrored for d in flat) / len(flat) < 0.7
    other = pairs.draw(1, 0, range(4), 0.5, 0.1, 1000)
    assert other != drawn[0]


def test_people_who_are_held_out_are_never_trained_on(files: tuple[Path, Path]) -> None:
    data = Prepared(files[1])
    training, held_out = ({data.photos[n].person for n in part} for part in data.split(0.4))
    assert len(held_out) == 2
    assert training | held_out == {f"person {n}" for n in range(6)}
    assert not training & held_out


def test_dropped_samples_have_the_features_of_nothing(files: tuple[Path, Path]) -> None:
    data = Prepared(files[1])
    draws = Pairs(data, range(len(data.photos))).draw(0, 0, range(40), 0.0, 0.5, 1000)
    batch = data.load(draws)
    gone = torch.tensor([draw.dropped for draw in draws])
    assert gone.any()
    assert not gone.all()
    assert torch.equal((batch.face == 0).all(dim=1), gone)
    assert torch.equal((batch.clip == data.nothing[0]).all(dim=(1, 2)), gone)


def test_a_mirrored_target_is_the_mirrored_photos(files: tuple[Path, Path]) -> None:
    data = Prepared(files[1])
    pairs = Pairs(data, range(len(data.photos)))
    plain = data.load(pairs.draw(0, 0, range(4), 0.0, 0.0, 1000))
    mirrored = data.load(pairs.draw(0, 0, range(4), 1.0, 0.0, 1000))
    assert torch.equal(mirrored.latents, plain.latents.flip(-1))
    assert torch.equal(mirrored.face, plain.face)
    assert torch.equal(mirrored.noise, plain.noise)


# --- Warm start -------------------------------------------------------------------------------


def warm_start(files: tuple[Path, Path], source: Path, out: Path) -> subprocess.Popen[str]:
    return start(files, out, verb=("warm-start", str(source)))


def test_a_run_begins_with_a_file(
    whole: Path, files: tuple[Path, Path], train: Any, tmp_path: Path
) -> None:
    """By the command; the run goes on from there, and its file says where it began."""
    source, out = tmp_path / "mine.safetensors", tmp_path / "run"
    export(whole, source)
    text = finish(warm_start(files, source, out))
    assert "taken: K', V' of 4 layers, face mapper, CLIP mapper\n" in text
    begun = at_step(out, 0)
    for name, x in formats.load(source).state_dict().items():
        assert torch.equal(begun[f"adapter.{name}"], x.float())
        assert torch.equal(begun[f"average.{name}"], x.float())
    train(out, validate_every=1, save_every=1)
    first = [line["validation_loss"] for line in lines(whole) if "validation_loss" in line]
    own = [line["validation_loss"] for line in lines(out) if "validation_loss" in line]
    assert own[0] == pytest.approx(min(first), rel=1e-3), "it goes on where the other run was"
    export(out, tmp_path / "next.safetensors")
    with safe_open(tmp_path / "next.safetensors", framework="pt") as file:
        origin = json.loads(file.metadata()["provenance"])
    assert origin["warm_start"]["digest"] == file_digest(source)


def test_what_cannot_begin_a_run_is_explained(
    whole: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint, data = files
    options = data, str(checkpoint), tmp_path / "run", settings()
    with pytest.raises(UserError, match=r"warm-start: .*least\.safetensors is no adapter"):
        host_train.warm_start(checkpoint, *options)
    with pytest.raises(UserError, match=r"warm-start: .*no\.safetensors"):
        host_train.warm_start(tmp_path / "no.safetensors", *options)
    other = write_safetensors(tmp_path / "other.safetensors", make("FaceID", 64))
    with pytest.raises(UserError, match=r"warm-start: .* does not fit this model"):
        host_train.warm_start(other, *options)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="holds a run that has begun"):
        host_train.warm_start(other, data, str(checkpoint), whole, settings())


# --- Pictures ---------------------------------------------------------------------------------


def test_sample_sheets_change_nothing_of_the_run(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Drawn by the code of inference, from the averaged weights, after each validation."""
    checkpoint, data = files
    tables = {"pictures": {"people": 2, "steps": 2}, "data": {"held_out": 0.4}}
    host_train.train(data, str(checkpoint), tmp_path / "with", settings(tables))
    plain = {**tables, "pictures": {"people": 0}}
    host_train.train(data, str(checkpoint), tmp_path / "without", settings(plain))
    assert_same(newest(tmp_path / "with"), newest(tmp_path / "without"))
    sheets = sorted((tmp_path / "with" / "samples").iterdir())
    assert [path.name for path in sheets] == ["step-00000006.jpg", "step-00000012.jpg"]
    first, last = (np.asarray(Image.open(path)).astype(float) for path in sheets)
    assert first.shape == last.shape
    assert first.shape[0] > 2 * 128
    assert first.shape[1] > 2 * 128
    assert np.abs(first - last).max() > 8, "the averaged weights have moved"
    assert not (tmp_path / "without" / "samples").exists()


def test_likeness_is_the_cosine_of_who_is_drawn(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a detector that sees the first person as the photo does, and the second not at all."""
    checkpoint, data = files
    prepared = Prepared(data)
    run = parse({"pictures": {"people": 2, "steps": 1}}, "test").pictures
    pictures = host_pictures.Pictures(checkpoint, prepared, range(24), run)
    vector = prepared.load([Draw(0, 0, False, False, 0, 0)]).face[0].numpy()
    seen = iter([[SimpleNamespace(embedding=3 * vector)], []])
    monkeypatch.setattr(host_pictures, "detect", lambda *_: next(seen))
    pictures._analysis = object()
    model = models.load_model(checkpoint)
    frozen = models.place_model(model, torch.device("cpu"), torch.float32)
    adapter = host_train.make_adapter(prepared, model, settings()).requires_grad_(False)
    told = pictures.draw(frozen, adapter, 3, tmp_path)
    assert told == {"faces": 0.5, "likeness": pytest.approx(1.0)}
    assert (tmp_path / "samples" / "step-00000003.jpg").exists()


# --- Several processes ------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


def start_two(files: tuple[Path, Path], out: Path, *options: str) -> list[subprocess.Popen[str]]:
    """As `accelerate launch` and `torchrun` start them."""
    common = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "ACCELERATE_USE_CPU": "true",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    ranks = [{"RANK": str(n), "LOCAL_RANK": str(n)} for n in range(2)]
    return [start(files, out, "--cpu", *options, environment=common | rank) for rank in ranks]


@needs_accelerate
def test_two_processes_are_one_with_the_whole_batch(
    whole: Path, files: tuple[Path, Path], train: Any, tmp_path: Path
) -> None:
    """Also: one goes on where two stopped."""
    out = tmp_path / "two"
    finish(*start_two(files, out, "--set", "run.steps=8"))
    assert checkpoints.load_newest(out).step == 8
    assert difference(newest(out), at_step(whole, 8)) < 1e-5
    train(out)
    assert difference(newest(out), newest(whole)) < 1e-5
    expected = {line["step"]: line for line in lines(whole) if "loss" in line}
    for line in lines(out):
        if "loss" in line:
            assert line["loss"] == pytest.approx(expected[line["step"]]["loss"], rel=1e-5)
    found = [
        line["validation_loss"]
        for line in lines(out)
        if line["step"] in (6, 12) and "validation_loss" in line
    ]
    expected_losses = [
        line["validation_loss"] for line in lines(whole) if "validation_loss" in line
    ]
    assert found == pytest.approx(expected_losses, rel=1e-5)


@needs_accelerate
def test_sharded_weights_are_the_same(
    whole: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "sharded"
    options = ("--set", "run.sharded=true")
    finish(*start_two(files, out, *options, "--set", "run.steps=8"))
    text = finish(*start_two(files, out, *options))
    assert "a part of them in each of 2 processes" in text
    assert difference(newest(out), newest(whole)) < 1e-5


def test_a_batch_that_processes_cannot_share_is_refused(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    three = Alone(torch.device("cpu"))
    three.count = 3
    with pytest.raises(UserError, match=r"run\.batch is 4, and 3 processes of run\.at_once = 2"):
        host_train.build(Prepared(files[1]), files[0], tmp_path, settings(), three)


# --- What breaks ------------------------------------------------------------------------------


def test_a_broken_photo_stops_the_run_and_is_named(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Latents that are no numbers: the state before the step is kept."""
    checkpoint, good = files
    data = write_data(tmp_path / "data", checkpoint)
    shard = data / "shards" / "000000.safetensors"
    tensors = load_file(shard)
    for name in tensors:
        if ".128x128" in name:
            tensors[name][:] = float("nan")
    save_file(tensors, shard)
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"loss of step \d+ is nan") as caught:
        host_train.train(data, str(checkpoint), out, settings())
    step = checkpoints.load_newest(out).step
    assert f"loss of step {step} is nan" in str(caught.value)
    assert f"step-{step:08d}" in str(caught.value)
    named = [line for line in str(caught.value).splitlines() if "(identity: " in line]
    assert len(named) == 4
    state = newest(out)
    assert all(torch.isfinite(x).all() for x in state.values())
    other = tmp_path / "good"
    host_train.train(good, str(checkpoint), other, settings(save_every=1, keep=99))
    assert step > 0
    assert_same(state, at_step(other, step))


def test_a_gradient_that_is_no_number_is_skipped_and_counted(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = loop.Loop._backward

    def broken(self: loop.Loop, batches: Any) -> Any:
        loss = backward(self, batches)
        if self.trainee.step == 3:
            next(iter(self.trainee.parameters.values())).grad[0] = float("inf")
        return loss

    monkeypatch.setattr(loop.Loop, "_backward", broken)
    state = train(tmp_path, steps=5)
    assert all(torch.isfinite(x).all() for x in state.values())
    assert [line["skipped"] for line in lines(tmp_path) if "skipped" in line] == [0, 0, 0, 1, 1]


def test_a_run_goes_on_only_as_what_it_was(whole: Path, files: tuple[Path, Path]) -> None:
    checkpoint, data = files
    before = {path: path.read_bytes() for path in (whole / "checkpoints").iterdir()}
    with pytest.raises(UserError, match=r"another run\.seed: it was 0, and is 1 now"):
        host_train.train(data, str(checkpoint), whole, settings(seed=1))
    assert {path: path.read_bytes() for path in (whole / "checkpoints").iterdir()} == before


def test_a_damaged_checkpoint_is_named(whole: Path, train: Any, tmp_path: Path) -> None:
    path = checkpoints.path_of(tmp_path, 12)
    path.parent.mkdir(parents=True)
    path.write_bytes(checkpoints.path_of(whole, 12).read_bytes()[:-100])
    with pytest.raises(UserError, match=r"step-00000012.* is damaged"):
        train(tmp_path)


def test_other_latents_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, data = files
    tensors = load_file(checkpoint)
    name = next(n for n in tensors if n.startswith("first_stage_model.") and n.endswith("weight"))
    tensors[name] = tensors[name] + 1
    other = tmp_path / "other.safetensors"
    save_file(tensors, other)
    with pytest.raises(UserError, match=r"autoencoder of .*other\.safetensors is another"):
        host_train.train(data, str(other), tmp_path / "run", settings())


def test_a_run_becomes_a_file_that_the_pack_reads(
    whole: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    """The averaged weights of the lowest validation loss, and what they were made of."""
    out = tmp_path / "mine.safetensors"
    step = export(whole, out)
    best = checkpoints.load(whole / "checkpoints" / "best.safetensors")
    assert step == best.step
    adapter = formats.load(out)
    for name, x in adapter.state_dict().items():
        assert torch.equal(x, best.tensors[f"average.{name}"].half())
    with safe_open(out, framework="pt") as file:
        origin = json.loads(file.metadata()["provenance"])
    assert origin["model"] == file_digest(files[0])
    assert origin["data"] == file_digest(files[1] / "index.jsonl")
    assert (origin["step"], origin["run.batch"]) == (step, 4)
    assert origin["validation_loss"] == best.metadata["lowest"]
    card = out.with_suffix(".md").read_text(encoding="utf-8")
    assert origin["model"] in card
    assert "consented" in card
    assert export(whole, out, newest=True) == 12


def test_what_cannot_be_exported_is_explained(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no checkpoint"):
        export(tmp_path, tmp_path / "mine.safetensors")
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        export(whole, tmp_path / "mine.bin")


def test_checkpoints_roll_and_the_best_stays(whole: Path) -> None:
    names = sorted(path.name for path in (whole / "checkpoints").iterdir())
    steps = [f"step-{n:08d}.safetensors" for n in (4, 8, 12)]
    assert names == ["best.safetensors", *steps]
    found = [line for line in lines(whole) if "validation_loss" in line]
    best = min(found, key=lambda line: line["validation_loss"])
    assert checkpoints.load(whole / "checkpoints" / "best.safetensors").step == best["step"]

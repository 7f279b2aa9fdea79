"""The training of the miniature's nets: what is interrupted ends as if it had not been."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pack.infinite_id.training import checkpoints
from pack.infinite_id.training.draws import generator
from pack.miniature.training import lesson
from pack.miniature.training.lesson import Recipe, Weights, averaged_weights, begin_with, train
from pack.miniature.training.workers import StoppedError
from torch import Tensor, nn

RECIPE = Recipe(rate=1e-2, average=0.9, batch=4, warm_up=5, save_every=3)
SAMPLES = 96


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One process, on the CPU."""
    monkeypatch.setattr(lesson.workers, "device", lambda: torch.device("cpu"))
    meeting = (tmp_path / "meeting").as_uri()
    torch.distributed.init_process_group("gloo", meeting, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


class Sums:
    """A net with dropout and a normalisation's statistics learns to add three numbers."""

    stop_at = -1

    def draw(self, first: int, count: int) -> tuple[Tensor]:
        return (torch.randn(count, 3, generator=generator(0, "sums", first)),)

    def loss(self, net: nn.Module, inputs: Tensor) -> Tensor:
        if self.stop_at == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        self.stop_at -= 1
        return (net(inputs) - inputs.sum(1, keepdim=True)).square().mean()


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))


def run(folder: Path, samples: int = SAMPLES, stop_at: int = -1, **how: Any) -> Weights:
    sums = Sums()
    sums.stop_at = stop_at
    return train(folder, "net", make_net(), RECIPE, sums, samples, **how)


def state(folder: Path) -> Mapping[str, Tensor]:
    found = checkpoints.load_newest(folder / "net")
    assert found is not None
    return found.tensors


@pytest.mark.parametrize("stop_at", [1, 7, 20, 40])
def test_a_run_that_a_signal_stopped_ends_with_the_same_bits(tmp_path: Path, stop_at: int) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", stop_at=stop_at)
    parts = run(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    one, other = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_averages_and_a_norms_statistics_are_returned_and_found(
    tmp_path: Path,
) -> None:
    returned, found = run(tmp_path), averaged_weights(tmp_path, "net")
    fresh = make_net()
    assert returned.keys() == fresh.state_dict().keys() == found.keys()
    assert all(torch.equal(returned[name], found[name]) for name in found)
    assert not torch.equal(found["1.running_mean"], fresh.state_dict()["1.running_mean"])
    assert torch.equal(found["0.weight"], state(tmp_path)["average.0.weight"])


def test_a_finished_run_is_passed_over(tmp_path: Path) -> None:
    first = run(tmp_path)
    again = run(tmp_path, stop_at=0)  # it would stop at the first step, if there were one
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert list(tmp_path.rglob("*.partial")) == []


def test_what_it_can_do_is_shown_at_intervals_and_at_the_end(tmp_path: Path) -> None:
    shown: list[int] = []

    def show(samples: int, averaged: Weights) -> dict[str, float]:
        shown.append(samples)
        return {"norm": float(averaged["0.weight"].norm())}

    run(tmp_path, show=show, show_every=40)
    assert shown == [40, 80, 96]
    lines = [json.loads(line) for line in (tmp_path / "net/stats.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "norm" in line] == [10, 20, 24]
    assert any("loss" in line for line in lines)


def test_a_run_begins_with_given_weights_once(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 1))
    begin_with(tmp_path, "net", {name: x.half() for name, x in net.state_dict().items()})
    begin_with(tmp_path, "net", {name: 0 * x for name, x in net.state_dict().items()})
    found = averaged_weights(tmp_path, "net")
    assert all(torch.equal(found[n], x.half().float()) for n, x in net.state_dict().items())
    after = train(tmp_path, "net", nn.Sequential(nn.Linear(3, 1)), RECIPE, Sums(), 4)
    assert (after["0.weight"] - found["0.weight"]).abs().max() < RECIPE.rate

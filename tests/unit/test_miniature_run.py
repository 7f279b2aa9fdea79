"""A stage's training loop: what is interrupted ends as if it had not been."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pack.miniature.training.run import Run, generator
from torch import Tensor, nn

BATCH, SAMPLES = 4, 96


@pytest.fixture(autouse=True)
def alone(tmp_path: Path) -> Iterator[None]:
    """One worker."""
    meeting = (tmp_path / "meeting").as_uri()
    torch.distributed.init_process_group("gloo", meeting, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def begin(folder: Path) -> Run:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1))
    return Run(folder, "net", net, lr=1e-2, decay=0.9, batch=BATCH)


def train(run: Run, samples: int) -> None:
    def loss_of(step: int) -> Tensor:
        inputs = torch.randn(run.batch, 3, generator=generator(step)).to(run.average.mean[0].device)
        return (run.net(inputs) - inputs.sum(1, keepdim=True)).square().mean()

    run.train(samples, loss_of, warm_up=5, finish=SAMPLES)


def test_interrupted_runs_end_with_the_same_bits(tmp_path: Path) -> None:
    whole = begin(tmp_path / "whole")
    train(whole, SAMPLES)
    for samples in (20, 64, SAMPLES):
        part = begin(tmp_path / "parts")
        train(part, samples)
    assert whole.samples == part.samples == SAMPLES
    for mine, own in (
        (whole.averaged(), part.averaged()),
        (whole.net.state_dict(), part.net.state_dict()),
    ):
        assert all(torch.equal(mine[name], own[name]) for name in mine)
    moments = [run.optimiser.state_dict()["state"] for run in (whole, part)]
    assert all(
        torch.equal(moments[0][i][name], moments[1][i][name])
        for i in moments[0]
        for name in moments[0][i]
    )


def test_finished_runs_are_passed_over(tmp_path: Path) -> None:
    train(begin(tmp_path), SAMPLES)
    again = begin(tmp_path)
    train(again, SAMPLES)
    assert again.step == SAMPLES // again.batch
    assert list(tmp_path.glob("*.partial")) == []

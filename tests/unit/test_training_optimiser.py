"""The optimisers: what is missing is named, and moments of any kind go on exactly."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from pack.infinite_id.errors import UserError
from pack.infinite_id.training.checkpoints import Checkpoint
from pack.infinite_id.training.optimiser import make_optimiser
from pack.infinite_id.training.processes import Alone
from pack.infinite_id.training.settings import Optimiser, parse, read
from pack.infinite_id.training.trainee import Trainee, learning_rate
from torch import nn


class EightBit(torch.optim.Optimizer):
    """What matters of bitsandbytes' AdamW8bit: moments in bytes, scales, a whole number of steps.

    Its own kernels are not run here.
    """

    def __init__(self, params: Any, lr: float, betas: Any, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            if not state:
                state.update(step=0, state1=torch.zeros(p.shape, dtype=torch.uint8))
                state["absmax1"] = torch.zeros(1)
            moment = 0.9 * state["state1"].float() * state["absmax1"] + p.grad.abs()
            state["absmax1"] = moment.max()[None] / 255
            state["state1"] = (moment / state["absmax1"]).round().byte()
            state["step"] += 1
            rate = self.param_groups[0]["lr"] / state["step"]
            p.sub_(rate * state["state1"] * state["absmax1"])


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.learner = nn.Linear(4, 3)


@pytest.fixture(params=["adamw", "adamw8bit"])
def settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Optimiser:
    for name in ("bitsandbytes", "bitsandbytes.optim"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["bitsandbytes.optim"], "AdamW8bit", EightBit, raising=False)
    return Optimiser(kind=request.param, rate=1e-2, warm_up=0)


def train(trainee: Trainee, steps: int) -> None:
    for _ in range(steps):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(trainee.step))
        trainee.module.learner(x).square().mean().backward()
        trainee.descend(10)


def test_moments_go_on_exactly(settings: Optimiser) -> None:
    def make() -> Trainee:
        return Trainee(Line(), Alone(torch.device("cpu")), settings)

    whole, first, second = make(), make(), make()
    train(whole, 6)
    train(first, 3)
    stored = first.capture({})
    second.restore(Checkpoint({k: x.clone() for k, x in stored.tensors.items()}, stored.metadata))
    train(second, 3)
    own, other = (t.capture({}).tensors for t in (second, whole))
    assert own.keys() == other.keys()
    assert len(own) > 8
    for name, x in own.items():
        assert x.dtype == other[name].dtype
        assert torch.equal(x, other[name]), name


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"adamw8bit needs bitsandbytes .*`pip install bits"):
        make_optimiser(Line().parameters(), Optimiser(kind="adamw8bit"))


def test_eight_bits_are_not_sharded() -> None:
    assert parse({"optimiser": {"kind": "adamw8bit"}}, "test").optimiser.kind == "adamw8bit"
    with pytest.raises(UserError, match="do not go together"):
        read(None, {"optimiser.kind": "adamw8bit", "run.sharded": "true"})


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [  # at steps 0, 5, 10 (the first after the warm-up), 35, 60, 85 and 110 of 110
        ("constant", [0.1, 0.6, 1, 1, 1, 1, 1]),
        ("linear", [0.1, 0.6, 1, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", [0.1, 0.6, 1, 0.2 + 0.8 * 0.853553, 0.6, 0.2 + 0.8 * 0.146447, 0.2]),
        ("wsd", [0.1, 0.6, 1, 1, 1, 1, 0.2]),
    ],
)
def test_the_rate_follows_its_schedule(schedule: Any, expected: list[float]) -> None:
    settings = Optimiser(rate=2e-3, warm_up=10, schedule=schedule, final=0.2)
    found = [learning_rate(settings, step, 110) / 2e-3 for step in (0, 5, 10, 35, 60, 85, 110)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_warm_up_stable_decay_falls_in_the_last_quarter() -> None:
    settings = Optimiser(rate=1.0, warm_up=0, schedule="wsd", final=0.0)
    found = [learning_rate(settings, step, 400) for step in (0, 299, 300, 350, 390, 400)]
    assert found == pytest.approx([1, 1, 1, 0.5, 0.1, 0])

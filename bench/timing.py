"""Times the modes in turns, each step between two plain ones, so that drifts cancel out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, quantiles
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..infinite_id.host.patch import apply, save_time
from .clock import Clock
from .counting import PIXELS
from .models import Subject
from .modes import Mode
from .watch import watch

SEED, CFG = 7, 5.0
PLAIN = "plain"


Around = Callable[[Callable[[], Any]], None]


class Evaluations(comfy.samplers.Sampler):
    """A sampler that makes no picture: it hands each evaluation of both conds to `around`.

    Noise levels fall. All else is the host's own: guider, wrappers, batching of the conds.
    """

    def __init__(self, around: Around) -> None:
        self._around = around

    def sample(  # type: ignore[override]  # the host's base class names no parameters
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        _callback: Any,
        noise: Tensor,
        *_args: Any,
        **_kwargs: Any,
    ) -> Tensor:
        for sigma in sigmas[:-1]:
            x = noise * sigma
            self._around(lambda: model_wrap(x, sigma.expand(len(x)), **extra_args))  # noqa: B023
        return noise


@dataclass(frozen=True)
class Way:
    """A patched model, its period in steps, and whether both conds have the same prompt."""

    model: ModelPatcher
    steps: int = 1
    people: int = 1
    is_alike: bool = False


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        return cls(low, median(values), high)


def make_ways(subject: Subject, modes: Sequence[Mode], tokens: int) -> dict[str, Way]:
    ways = {}
    for mode in modes:
        application = mode.apply_to(subject.draw_identity(mode.people, tokens))
        model = save_time(apply(subject.model, application), mode.savings)
        ways[mode.name] = Way(model, mode.savings.every, mode.people, mode.is_alike)
    return ways


def compare(
    subject: Subject, ways: Mapping[str, Way], size: int, repeats: int, batch: int = 1
) -> dict[str, Any]:
    """Return ratios of each way's step to plain's, per picture, with its memory and syncs."""
    plain = Way(subject.model)
    noise = torch.zeros(batch, 4, size // PIXELS, size // PIXELS)
    facts = {name: _inspect(subject, way, noise) for name, way in {PLAIN: plain, **ways}.items()}
    before = time_step(subject, plain, noise)
    plains = [before]
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    cpu_ratios: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found, after = time_step(subject, way, noise), time_step(subject, plain, noise)
            beside = [(a + b) / 2 for a, b in zip(before, after, strict=True)]
            ratios[name].append(found[0] / beside[0] / way.people)
            cpu_ratios[name].append(found[1] / beside[1] / way.people)
            plains.append(after)
            before = after
    return {
        "plain": vars(Spread.of([seconds for seconds, _ in plains])),
        "has_gpu": subject.model.load_device.type == "cuda",
        "modes": {
            name: {
                "ratio": vars(Spread.of(ratios[name])),
                "cpu": vars(Spread.of(cpu_ratios[name])),
                "extra": facts[name]["peak"] - facts[PLAIN]["peak"],
                "waits": facts[name]["waits"] - facts[PLAIN]["waits"],
            }
            for name in ways
        },
    }


def time_step(subject: Subject, way: Way, noise: Tensor) -> tuple[float, float]:
    """Return wall-clock and processor seconds of a step, as means over the way's period."""
    clock = Clock(subject.model.load_device)
    found = []

    def around(evaluate: Callable[[], Any]) -> None:
        with clock:
            evaluate()
        found.append((clock.seconds, clock.cpu_seconds))

    _run(subject, way, noise, around)
    return mean(wall for wall, _ in found), mean(cpu for _, cpu in found)


def _inspect(subject: Subject, way: Way, noise: Tensor) -> dict[str, int]:
    """Return the peak memory of the evaluations, and their waits for the GPU; also warm up."""
    peaks, waits = [], []

    def around(evaluate: Callable[[], Any]) -> None:
        with watch() as counts, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _warn_of_syncs(subject.model.load_device, "warn")
            try:
                evaluate()
            finally:
                _warn_of_syncs(subject.model.load_device, "default")
        peaks.append(counts.peak)
        waits.append(sum("synchroniz" in str(warning.message) for warning in caught))

    _run(subject, way, noise, around)
    return {"peak": max(peaks), "waits": sum(waits)}


def _warn_of_syncs(device: torch.device, mode: str) -> None:
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode(mode)


def _run(subject: Subject, way: Way, noise: Tensor, around: Around) -> None:
    sampling: Any = subject.model.get_model_object("model_sampling")
    levels = [sampling.percent_to_sigma(0.1 + 0.1 * step) for step in range(way.steps + 1)]
    with torch.inference_mode():
        comfy.sample.sample_custom(
            way.model,
            torch.randn(noise.shape, generator=torch.Generator().manual_seed(SEED)),
            CFG,
            Evaluations(around),
            torch.tensor(levels, dtype=torch.float32),
            subject.draw_prompt(1),
            subject.draw_prompt(1 if way.is_alike else 2),
            noise,
            disable_pbar=True,
            seed=SEED,
        )

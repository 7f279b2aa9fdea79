"""A stage's net, trained by the pack's own loop, which averages, saves, resumes and stops.

Every random number is a function of a sample's number in the run. So a resumed run gives the same
bits as an uninterrupted one, and two processes draw what one would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...infinite_id.training import checkpoints
from ...infinite_id.training.loop import Loop
from ...infinite_id.training.objective import Trained
from ...infinite_id.training.processes import join
from ...infinite_id.training.settings import Optimiser, Run, Settings
from ...infinite_id.training.stats import Silent, Stats
from ...infinite_id.training.trainee import Trainee
from ...infinite_id.training.watch import watch_signals
from . import workers
from .workers import StoppedError

GPU_BATCH, GPU_RATE = 8, 2.0

Weights = dict[str, Tensor]
Show = Callable[[int, Weights], Mapping[str, Any]]
"""`(samples so far, averaged weights) -> what is to be noted in the run's stats`."""


class Lesson(Protocol):
    """What a net learns."""

    def draw(self, first: int, count: int) -> tuple[Tensor, ...]:
        """Draw the run's samples from number `first` on; the same numbers give the same ones."""
        ...

    @property
    def loss(self) -> Callable[..., Tensor]:
        """`(net, *drawn) -> the mean loss`, a scalar."""
        ...


@dataclass(frozen=True)
class Recipe:
    """How a net learns.

    Attributes:
        rate: AdamW's at full height.
        average: decay of the moving average.
        batch: samples of a step; each of two processes takes half. A GPU takes `GPU_BATCH` times as
            many at once, and a larger rate.
        warm_up, save_every: steps.
    """

    rate: float
    average: float
    batch: int
    warm_up: int = 200
    save_every: int = 100

    def settings(self, samples: int, show_every: int) -> Settings:
        on_gpu = workers.device().type == "cuda"
        batch = self.batch * GPU_BATCH if on_gpu else self.batch
        optimiser = Optimiser(
            rate=self.rate * GPU_RATE if on_gpu else self.rate,
            beta1=0.9,
            beta2=0.99,
            warm_up=self.warm_up,
            schedule="wsd",
            final=0.02,
            average=self.average,
        )
        run = Run(
            steps=-(-samples // batch),
            batch=batch,
            at_once=batch if on_gpu else batch // 2,
            checkpointing=False,
            log_every=100,
            save_every=self.save_every,
            keep=1,
            validate_every=show_every // batch,
            tensorboard=False,
        )
        return Settings(optimiser=optimiser, run=run)


def train(
    folder: Path,
    name: str,
    net: nn.Module,
    recipe: Recipe,
    lesson: Lesson,
    samples: int,
    show: Show | None = None,
    show_every: int = 0,
) -> Weights:
    """Train a net until it has seen `samples` samples, in all its runs together.

    Args:
        folder: its state lies in `folder / name`.
        show: called after every `show_every` samples, and at the end.

    Returns:
        The averaged weights, on the CPU.

    Raises:
        StoppedError: if it was asked to stop.
    """
    settings = recipe.settings(samples, show_every)
    processes = join(workers.device(), sharded=False)
    trainee = Trainee(_Objective(net, lesson), processes, settings.optimiser)
    loop = _ShowingLoop(
        folder / name, settings, trainee, _Samples(lesson, samples), None, processes, 0, {}
    )
    loop.look = show
    loop.resume()
    with watch_signals() as watch:
        if not loop.train(watch):
            raise StoppedError
    return read_averaged(loop.capture())


def averaged_weights(folder: Path, name: str) -> Weights:
    """Return the averaged weights of a finished or running stage."""
    checkpoint = checkpoints.load_newest(folder / name)
    if checkpoint is None:
        raise FileNotFoundError(f"{folder / name} holds no checkpoint: run stage {name} first.")
    return read_averaged(checkpoint)


def read_averaged(checkpoint: checkpoints.Checkpoint) -> Weights:
    """Return a net's state dict with the averaged parameters."""
    return checkpoint.under("average") | checkpoint.under("buffer")


def begin_with(folder: Path, name: str, weights: Weights) -> None:
    """Let a stage that has not begun begin with these weights, which have no buffers."""
    if checkpoints.list_checkpoints(folder / name):
        return
    both = ("adapter", "average")
    tensors = {f"{kind}.{key}": x.float().clone() for key, x in weights.items() for kind in both}
    state = checkpoints.Checkpoint(tensors, {"step": 0, "lowest": float("inf")})
    checkpoints.save(folder / name, state, keep=1)


@dataclass(frozen=True)
class _Batch:
    first: int
    names: tuple[str, ...]
    drawn: tuple[Tensor, ...]

    def to(self, device: torch.device) -> _Batch:
        return replace(self, drawn=tuple(x.to(device) for x in self.drawn))


class _Samples:
    """Numbers the samples through all steps."""

    def __init__(self, lesson: Lesson, samples: int) -> None:
        self._lesson, self._count = lesson, samples

    def __len__(self) -> int:
        return self._count

    def read(self, step: int, samples: Sequence[int], settings: Settings, times: int) -> _Batch:
        del times
        first = step * settings.run.batch + samples[0]
        names = tuple(f"sample {first + n}" for n in range(len(samples)))
        return _Batch(first, names, self._lesson.draw(first, len(samples)))


class _Objective(Trained):
    def __init__(self, net: nn.Module, lesson: Lesson) -> None:
        super().__init__(net)
        self._lesson = lesson

    def forward(self, batch: _Batch) -> Tensor:
        torch.manual_seed(batch.first)  # of dropout
        return self._lesson.loss(self.learner, *batch.drawn)


class _ShowingLoop(Loop):
    """A run that shows what the averaged weights can do instead of a validation loss."""

    look: Show | None = None

    def validate(self, stats: Stats | Silent) -> None:
        state = self.capture()
        if self.look is not None and self.processes.rank == 0:
            seen = self.trainee.step * self.settings.run.batch
            stats.note(self.trainee.step, self.look(seen, read_averaged(state)))
        self.processes.wait()

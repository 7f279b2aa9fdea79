"""A run of some hundred steps that learns the words of one person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy.model_patcher import ModelPatcher

from ..training.draws import time_of_preview
from ..training.host_follow import Follow
from ..training.processes import Alone
from ..training.settings import Optimiser, Settings, short_run
from ..training.stats import read_losses
from ..training.trainee import Trainee
from .early import LookingLoop, load_best
from .learner import PersonLearner, Targets

LOOK_EVERY = 50
"""Steps between measurements of the likeness to a held-out photo."""


@dataclass(frozen=True)
class Learnt:
    """How a run went.

    Attributes:
        losses: of every step that was done.
        step: whose words are kept: the last, or the one of the greatest likeness.
        likeness: the greatest likeness to the held-out photo, if there is one.
        whole: whether it was not interrupted.
    """

    losses: list[float]
    step: int
    likeness: float | None
    whole: bool

    def describe(self, photos: int) -> str:
        """Say in words what was done."""
        text = f"{self.step} steps on {photos} photos"
        if self.losses:
            last = self.losses[-10:]
            text += f", mean loss of the last {len(last)} {sum(last) / len(last):.4f}"
        if self.likeness is not None:
            text += f"; the best of {len(self.losses)} steps, likeness {self.likeness:.3f}"
        return text


def make_settings(steps: int, rate: float, seed: int, twice: bool, looks: bool) -> Settings:
    """Return the trainer's settings; `looks` says whether a photo is held out."""
    return Settings(
        optimiser=Optimiser(rate=rate, warm_up=0, average=0.0),
        run=short_run(steps, 1, seed, twice, LOOK_EVERY if looks else 0),
    )


def run(
    out: Path,
    settings: Settings,
    learner: PersonLearner,
    targets: Targets,
    times: int,
    origin: Mapping[str, Any],
    patcher: ModelPatcher,
    look: Callable[[], float] | None,
    follow: Follow,
) -> Learnt:
    """Train a learner to the end of its run, or go on where the run was stopped.

    Args:
        out: the folder of the run's state.
        learner: it gets the weights that are kept.
        times: how many timesteps the model has.
        origin: all that determines the result, except the number of steps.
        patcher: of the diffusion model.
        look: returns the likeness at the current weights, if a photo is held out.

    Raises:
        UserError: if the loss is not finite, or the disk is full.
    """
    processes = Alone(patcher.load_device)
    trainee = Trainee(learner, processes, settings.optimiser)
    loop = LookingLoop(out, settings, trainee, targets, None, processes, times, origin)
    begun = loop.resume()
    loop.look = look
    shown = targets.show(time_of_preview(times)).to(processes.device)
    whole = True
    if trainee.step < settings.run.steps and not loop.is_settled:
        whole = follow(loop, begun, patcher, lambda: learner.denoise(shown))
    if loop.best_step:
        load_best(learner.learner, out)
    return Learnt(
        read_losses(out) if trainee.step else [],
        loop.best_step or trainee.step,
        loop.likeness if loop.best_step else None,
        whole,
    )

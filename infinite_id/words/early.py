"""A run that measures the likeness to a held-out photo, and ends when it rises no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ..training import checkpoints
from ..training.loop import Loop
from ..training.stats import Silent, Stats

PATIENCE = 4
"""A run ends after this many looks without a better likeness."""


class LookingLoop(Loop):
    """A run that keeps the state of the greatest likeness."""

    look: Callable[[], float] | None = None
    """Returns the likeness at the current weights, -1 to 1; None if no photo is held out."""
    best_step = 0

    @property
    def likeness(self) -> float:
        """The greatest likeness so far; minus infinity before the first look."""
        return -self.lowest

    @property
    def is_settled(self) -> bool:
        """Whether the last looks were no better than one before them."""
        waited = self.trainee.step - self.best_step
        return bool(self.best_step) and waited >= PATIENCE * self.settings.run.validate_every

    def validate(self, stats: Stats | Silent) -> None:
        if self.look is None:
            return
        likeness = self.look()
        stats.note(self.trainee.step, {"likeness": likeness})
        if likeness > self.likeness:
            self.lowest, self.best_step = -likeness, self.trainee.step
            checkpoints.save_best(self.out, self.capture())

    def capture(self) -> checkpoints.Checkpoint:
        state = super().capture()
        return checkpoints.Checkpoint(
            state.tensors, {**state.metadata, "best_step": self.best_step}
        )

    def resume(self) -> int:
        step = super().resume()
        stored: Any = self.metadata.get("best_step", 0)
        self.best_step = int(stored)
        return step


def load_best(module: nn.Module, run: Path) -> None:
    """Give a learner the weights of the greatest likeness, of the run in this folder."""
    best = checkpoints.load(run / checkpoints.FOLDER / checkpoints.BEST).under("adapter")
    module.load_state_dict({**module.state_dict(), **best})

"""What the learners of both kinds of words, and their photos, have in common."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from ..training.loop import Samples
from ..training.objective import Trained


class Targets(Samples, Protocol):
    """A run's photos."""

    def show(self, time: int) -> Any:
        """Return a batch of the first photo at a timestep, always with the same noise."""
        ...


class PersonLearner(Trained):
    """Learns the words of one person, and can show what the model makes of them."""

    def denoise(self, batch: Any) -> Tensor:
        """Return the model's estimate `(b, c, h, w)` of a batch's latents, in its own scale."""
        raise NotImplementedError

"""The adapter as it learns: weights, their moving average, and the optimiser."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .checkpoints import Checkpoint
from .objective import Trained
from .optimiser import list_state, make_optimiser, read_state
from .processes import Alone
from .settings import Optimiser

DECAY = 0.25
"""The share of a run in which the rate of the schedule `wsd` falls."""


def learning_rate(settings: Optimiser, step: int, steps: int) -> float:
    """Return the rate of a step, counted from 0: a linear warm-up, then the schedule."""
    warm_up = min(1.0, (step + 1) / settings.warm_up) if settings.warm_up else 1.0
    done = max(0, step - settings.warm_up) / max(1, steps - settings.warm_up)
    falling = {
        "constant": 1.0,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "linear": 1 - done,
        "wsd": min(1.0, (1 - done) / DECAY),
    }[settings.schedule]
    if settings.schedule != "constant":
        falling = settings.final + (1 - settings.final) * falling
    return settings.rate * warm_up * falling


class Trainee:
    """One adapter in training; its tensors are whole, or a process's part of them."""

    def __init__(self, objective: Trained, processes: Alone, settings: Optimiser) -> None:
        self._processes, self._settings = processes, settings
        self.step = 0
        self.module = processes.wrap(objective)
        # Wrapping changes the adapter's parameters in place, and not their names.
        self.parameters = dict(objective.learner.named_parameters())
        stored = objective.learner.state_dict()
        buffers = objective.learner.named_buffers()
        self._buffers = {name: x for name, x in buffers if name in stored}
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.optimiser = make_optimiser(self.parameters.values(), settings)

    def count_weights(self) -> tuple[int, int]:
        """How many weights there are, and how many of them are in this process."""
        parameters = self.parameters.values()
        return sum(p.numel() for p in parameters), sum(_own_part(p).numel() for p in parameters)

    def descend(self, steps: int) -> float:
        """Update the weights by the gradients, and clear the gradients.

        Returns:
            The gradients' norm before clipping. If it is not finite, the weights are left as they
            are: one broken batch must not end a run.
        """
        limit = self._settings.clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), limit)
        size = float(self._processes.whole(norm))
        if math.isfinite(size):
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate(self._settings, self.step, steps)
            self.optimiser.step()
            self._follow()
        self.optimiser.zero_grad()
        self.step += 1
        return size

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights. At first it is over few steps."""
        decay = min(self._settings.average, (1 + self.step) / (10 + self.step))
        average = [_own_part(x) for x in self.average.values()]
        weights = [_own_part(p.detach()) for p in self.parameters.values()]
        torch._foreach_lerp_(average, weights, 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the module the averaged weights, inside the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, p in self.parameters.items():
            own, mean = _own_part(p.detach()), _own_part(self.average[name])
            before = own.clone()
            own.copy_(mean)
            mean.copy_(before)
        self._processes.exchanged(self.module)

    def capture(self, metadata: Mapping[str, Any]) -> Checkpoint:
        """The whole state; every process must call it."""
        whole = self._processes.whole
        tensors = {f"adapter.{name}": whole(p) for name, p in self.parameters.items()}
        tensors |= {f"average.{name}": whole(x) for name, x in self.average.items()}
        for name, p in self.parameters.items():
            for key, x in list_state(self.optimiser.state[p]):
                tensors[f"optimiser.{key}.{name}"] = whole(x)
        tensors |= {f"buffer.{name}": whole(x) for name, x in self._buffers.items()}
        return Checkpoint(tensors, {**metadata, "step": self.step})

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a state. Raises UserError if it is of an adapter of another shape."""
        adapter, average = checkpoint.under("adapter"), checkpoint.under("average")
        _check_shapes(adapter, self.parameters)
        part = self._processes.part
        for name, p in self.parameters.items():
            p.copy_(part(adapter[name], p))
            self.average[name].copy_(part(average[name], p))
        for name, x in checkpoint.under("buffer").items():
            self._buffers[name].copy_(x)
        for path, x in checkpoint.under("optimiser").items():
            key, _, name = path.partition(".")
            p = self.parameters[name]
            of_weights = x.shape == p.shape and x.dtype == p.dtype
            own = part(x, p) if of_weights else read_state(key, x, self._settings)
            self.optimiser.state[p][key] = own
        self.step = checkpoint.step


def _own_part(x: Tensor) -> Tensor:
    """A process's part of a sharded tensor, or the tensor."""
    return x.to_local() if hasattr(x, "to_local") else x


def _check_shapes(stored: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    wrong = [n for n in own if n not in stored or stored[n].shape != own[n].shape]
    if wrong or len(stored) != len(own):
        name = wrong[0] if wrong else next(n for n in stored if n not in own)
        raise UserError(
            f"The checkpoint is of another model: {len(wrong)} of {len(own)} tensors differ, first "
            f"{name}. Give the model and the settings of that run, or another --out."
        )

"""The training loop. It stops when asked to, and goes on as if it had not stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import UserError
from . import checkpoints
from .data import Pairs
from .processes import Alone
from .settings import Settings
from .stats import Silent, Stats
from .trainee import Trainee, learning_rate
from .watch import Watch


class Batch(Protocol):
    """Some samples."""

    @property
    def names(self) -> tuple[str, ...]:
        """The samples' names, for messages."""
        ...

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        ...


class Samples(Protocol):
    """What is trained on."""

    def __len__(self) -> int:
        """How many photos there are."""
        ...

    def read(self, step: int, samples: Sequence[int], settings: Settings, times: int) -> Batch:
        """Read some of a step's samples. The same step and numbers always give the same ones."""
        ...


class Loop:
    """A run: the data, the trainee, and what is written about them."""

    def __init__(
        self,
        out: Path,
        settings: Settings,
        trainee: Trainee,
        samples: Samples,
        held_out: Pairs | None,
        processes: Alone,
        times: int,
        metadata: Mapping[str, Any],
    ) -> None:
        """
        Args:
            held_out: pairs of people who are not trained on; None: nothing is validated.
            times: how many timesteps the model has.
            metadata: a description of the run, which goes into each checkpoint.

        Raises:
            UserError: if the batch cannot be shared among the processes.
        """
        self.out, self.settings, self.trainee = out, settings, trainee
        self.samples, self.held_out = samples, held_out
        self.processes, self.times, self.metadata = processes, times, metadata
        self.lowest = math.inf
        self.show: Callable[[], Mapping[str, float]] | None = None
        """Called at each validation: draws with the averaged weights, and returns numbers."""
        run = settings.run
        if run.batch % (run.at_once * processes.count):
            raise UserError(
                f"run.batch is {run.batch}, and {processes.count} processes of run.at_once = "
                f"{run.at_once} samples cannot share it: it must be a multiple of "
                f"{run.at_once * processes.count}."
            )

    def train(self, watch: Watch) -> bool:
        """Train to the last step, or until asked to stop. Return whether the last was done."""
        run, trainee = self.settings.run, self.trainee
        stats = self._open_stats()
        losses: list[float] = []
        skipped = 0
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(self._read, trainee.step)
            while trainee.step < run.steps and not self.is_settled:
                step, batches = trainee.step, following.result()
                following = reader.submit(self._read, step + 1)
                loss, stop = self._gather(self._backward(batches), watch.stop())
                self._check(loss, batches, step)
                norm = trainee.descend(run.steps)
                losses, skipped = [*losses, loss], skipped + (not math.isfinite(norm))
                stats.advance({"loss": loss})
                watch.note(trainee.step, loss)
                done = trainee.step == run.steps
                if trainee.step % run.log_every == 0 or done or stop:
                    rate = learning_rate(self.settings.optimiser, step, run.steps)
                    mean = sum(losses) / len(losses)
                    line = {"loss": mean, "gradient": norm, "rate": rate, "skipped": skipped}
                    stats.write(trainee.step, line)
                    losses = []
                if run.validate_every and (trainee.step % run.validate_every == 0 or done):
                    self.validate(stats)
                if trainee.step % run.save_every == 0 or done or stop or self.is_settled:
                    self.save()
                if stop:
                    break
        stats.close()
        return trainee.step == run.steps

    @property
    def is_settled(self) -> bool:
        """Whether nothing would be gained by further steps."""
        return False

    def _read(self, step: int) -> list[Batch]:
        """Read this process's samples of a step, in parts that go through the model at once."""
        run = self.settings.run
        rank, count = self.processes.rank, self.processes.count
        batches = []
        for part in range(run.batch // (run.at_once * count)):
            first = (part * count + rank) * run.at_once
            samples = range(first, first + run.at_once)
            batches.append(self.samples.read(step, samples, self.settings, self.times))
        return batches

    def _backward(self, batches: list[Batch]) -> Tensor:
        """Compute this process's gradients. Return the mean loss, without waiting for it."""
        module = self.trainee.module
        total = torch.zeros((), device=self.processes.device)
        for n, batch in enumerate(batches, start=1):
            with self._apart(n < len(batches)):
                loss = module(batch.to(self.processes.device)).mean() / len(batches)
                loss.backward()
            total += loss.detach()
        return total

    @contextmanager
    def _apart(self, more_follow: bool) -> Iterator[None]:
        if not more_follow:
            yield
            return
        with self.processes.apart(self.trainee.module):
            yield

    def _gather(self, loss: Tensor, asked: bool) -> tuple[float, bool]:
        """Return the mean loss of all processes, and whether any was asked to stop."""
        self._own_loss = float(loss)
        both = self.processes.mean(torch.tensor([self._own_loss, float(asked)]))
        mean, stop = both.tolist()
        return mean, stop > 0

    def _check(self, loss: float, batches: list[Batch], step: int) -> None:
        if math.isfinite(loss):
            return
        self.save()  # the weights are those before this step
        names = [name for batch in batches for name in batch.names]
        own = not math.isfinite(self._own_loss)
        listed = "\n  ".join(names) if own else "see the messages of the other processes"
        raise UserError(
            f"The loss of step {step} is {loss}. The state before it is kept in "
            f"{checkpoints.path_of(self.out, step)}. If the losses before rose, go on with a lower "
            "optimiser.rate; if not, one of the photos of this step is broken:\n  " + listed
        )

    def validate(self, stats: Stats | Silent) -> None:
        """Note the averaged weights' loss on held-out people, and keep the best weights."""
        if not self.held_out:
            return
        with self.trainee.averaged():
            loss = self.validation_loss(self.held_out)
        stats.note(self.trainee.step, {"validation_loss": loss})
        if self.show is not None:
            stats.note(self.trainee.step, self.show())
        if loss < self.lowest:
            self.lowest = loss
            checkpoint = self.capture()
            if self.processes.rank == 0:
                checkpoints.save_best(self.out, checkpoint)

    @torch.no_grad()
    def validation_loss(self, held_out: Pairs) -> float:
        """Return the present weights' mean loss over fixed pairs, noise and timesteps."""
        draws = held_out.fixed(self.settings.run.validation, self.times)
        draws.sort(key=held_out.bucket_of)
        at_once, rank, count = self.settings.run.at_once, self.processes.rank, self.processes.count
        total = torch.zeros((), dtype=torch.float64)
        for _, group in groupby(draws, key=held_out.bucket_of):
            same = list(group)
            for first in range(0, len(same), at_once * count):
                own = same[first + rank * at_once :][:at_once]
                # Sharded weights are gathered in each forward: all processes take part in it.
                batch = held_out.data.load(own or same[first : first + 1])
                losses = self.trainee.module(batch.to(self.processes.device))
                total += losses[: len(own)].double().sum().cpu()
        mean = self.processes.mean(total.float()[None]) * count
        return float(mean) / len(draws)

    def capture(self) -> checkpoints.Checkpoint:
        """Return the state as a checkpoint."""
        return self.trainee.capture({**self.metadata, "lowest": self.lowest})

    def save(self) -> None:
        """Write a checkpoint of the steps that are done."""
        checkpoint = self.capture()
        if self.processes.rank == 0:
            checkpoints.save(self.out, checkpoint, self.settings.run.keep)
        self.processes.wait()

    def resume(self) -> int:
        """Go on from the newest checkpoint, if there is one. Return the step.

        Raises:
            UserError: if the checkpoint is of another model, other data or other fixed settings.
        """
        checkpoint = checkpoints.load_newest(self.out)
        if checkpoint is not None:
            checkpoints.check_same(self.metadata, checkpoint.metadata, self.out)
            self.trainee.restore(checkpoint)
            self.metadata = {**checkpoint.metadata, **self.metadata}  # a warm start's origin
            self.lowest = float(checkpoint.metadata["lowest"])
        return self.trainee.step

    def _open_stats(self) -> Stats | Silent:
        run = self.settings.run
        if self.processes.rank:
            return Silent()
        return Stats(self.out, self.trainee.step, run.steps, run.tensorboard)

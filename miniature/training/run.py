"""One stage's training loop: it counts samples, saves atomically and resumes where it was.

Every random number of a step comes from a generator seeded with the step's number, so a resumed
run gives the same bits as an uninterrupted one, with as many workers and the same device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import workers

SAVE_EVERY = 120.0  # seconds
FALLING = 0.25  # share of the samples over which the learning rate falls
LOG_EVERY = 100  # steps
GPU_BATCH, GPU_RATE = 8, 2.0


def generator(step: int) -> torch.Generator:
    return torch.Generator().manual_seed(step)


class Averaged:
    """An exponential moving average of a net's parameters; its window is short at first."""

    def __init__(self, net: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.own = list(net.parameters())
        self.mean = [p.detach().clone() for p in self.own]

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.own], weight)


class Run:
    """A net, its optimiser and its average, stored as `<folder>/<name>.pt`; a log beside it.

    `batch` is the number of samples of one worker's step on a CPU. A GPU takes `GPU_BATCH` times as
    many samples at once, and a larger learning rate. `seconds` are processor time.
    """

    def __init__(
        self, folder: Path, name: str, net: torch.nn.Module, lr: float, decay: float, batch: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.log_path = folder / f"{name}.pt", folder / f"{name}.txt"
        on_gpu = workers.device().type == "cuda"
        self.batch = batch * GPU_BATCH if on_gpu else batch
        self.lr = lr * GPU_RATE if on_gpu else lr
        self.net = net.to(workers.device())
        self.step, self.samples, self.seconds = 0, 0, 0.0
        parameters = [p for p in net.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            parameters, lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01
        )
        self.average = Averaged(net, decay)
        if self.path.exists():
            self._resume(torch.load(self.path, map_location=workers.device(), weights_only=True))

    def train(
        self,
        samples: int,
        loss_of: Callable[[int], Tensor],
        warm_up: int = 200,
        finish: int | None = None,
    ) -> None:
        """Train until this net has seen `samples` samples in all its runs together.

        `loss_of(seed)` returns the loss of `batch` samples. The learning rate falls over the last
        quarter of `finish` samples, which is `samples` if this call is not only a part.
        """
        losses: list[float] = []
        saved = since = time.monotonic()
        while self.samples < samples:
            start = time.process_time()
            for group in self.optimiser.param_groups:
                group["lr"] = self.lr * min(
                    1.0, (1 + self.step) / warm_up, self._rest(finish or samples)
                )
            loss = loss_of(self.step * workers.count() + workers.number())
            losses.append(self._descend(loss))
            self.samples += self.batch * workers.count()
            self.seconds += time.process_time() - start
            if self.step % LOG_EVERY == 0 or self.samples >= samples:
                speed = len(losses) * self.batch * workers.count() / (time.monotonic() - since)
                self.log(f"loss {sum(losses) / len(losses):.4f}, {speed:.1f} samples/s")
                losses, since = [], time.monotonic()
            if time.monotonic() - saved > SAVE_EVERY:
                self.save()
                saved = time.monotonic()
        self.save()
        workers.wait()

    def _rest(self, finish: int) -> float:
        return max(0.02, (1 - self.samples / finish) / FALLING)

    def _descend(self, loss: Tensor) -> float:
        """Make one step, and return the mean loss of all workers."""
        self.optimiser.zero_grad()
        loss.backward()
        report = loss.detach()[None].clone()
        workers.average([p.grad for p in self.net.parameters() if p.grad is not None] + [report])
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self.average.update(self.step)
        return report.item()

    def log(self, text: str) -> None:
        if workers.number() > 0:
            return
        each = 1e3 * self.seconds * workers.count() / max(1, self.samples)
        line = f"step {self.step}, {self.samples} samples, {each:.1f} ms of a core each: {text}"
        print(line, flush=True)
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def averaged(self) -> dict[str, Tensor]:
        """Return the net's state dict with the averaged parameters."""
        names = [name for name, _ in self.net.named_parameters()]
        return self.net.state_dict() | dict(zip(names, self.average.mean, strict=True))

    def save(self) -> None:
        if workers.number() > 0:
            return
        state = {
            "net": self.net.state_dict(),
            "averaged": self.averaged(),
            "mean": self.average.mean,
            "optimiser": self.optimiser.state_dict(),
            "counters": [self.step, self.samples, self.seconds],
        }
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.path)

    def _resume(self, state: dict[str, Any]) -> None:
        if "net" not in state:  # published weights hold the average only
            self.net.load_state_dict(state["averaged"])
            self.average = Averaged(self.net, self.average.decay)
            return
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.mean = state["mean"]
        self.step, self.samples, self.seconds = state["counters"]


def averaged_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Return the averaged weights of a finished or running stage."""
    state: dict[str, Any] = torch.load(
        folder / f"{name}.pt", map_location=workers.device(), weights_only=True
    )
    return state["averaged"]

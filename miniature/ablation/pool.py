"""Several processes with one thread each draw and score different people at once.

The results do not depend on the number of processes.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ...infinite_id import launch
from ..training.workers import KEEP_MEMORY

if TYPE_CHECKING:  # they import the host, which each process must find first
    from .metrics import Metrics
    from .pipeline import Pipeline

T = TypeVar("T")
R = TypeVar("R")


class Pool:
    """Processes that each have their own pipeline and nets for the metrics."""

    def __init__(self, host: Path | None, processes: int, steps: int) -> None:
        os.environ.update(KEEP_MEMORY)  # read when a process starts
        self._pool = ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), _begin, (host, steps)
        )

    def map(
        self, name: str, work: Callable[[Pipeline, Metrics, T], R], items: Iterable[T]
    ) -> list[R]:
        """Apply `work` to each item and keep their order; `work` must be picklable."""
        todo, done = list(items), []
        for result in self._pool.map(_work, [work] * len(todo), todo):
            done.append(result)
            print(f"{name}: {len(done)} of {len(todo)}", flush=True)
        return done

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


_own: list[Any] = []  # this process's pipeline and metrics


def _begin(host: Path | None, steps: int) -> None:
    torch.set_num_threads(1)
    launch.use_host(launch.HostOptions(host, cpu=True))
    from .metrics import Metrics
    from .pipeline import Pipeline

    pipeline = Pipeline.load(steps=steps)
    _own[:] = pipeline, Metrics.load(pipeline.analysis)


def _work(work: Callable[[Any, Any, T], R], item: T) -> R:
    pipeline, metrics = _own
    return work(pipeline, metrics, item)

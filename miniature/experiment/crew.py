"""Several processes, one thread each, that draw and judge for different people at once.

What comes out does not depend on their number.
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
    from .jury import Jury
    from .studio import Studio

T = TypeVar("T")
R = TypeVar("R")


class Crew:
    """Each process has a studio and a jury of its own."""

    def __init__(self, host: Path | None, processes: int, steps: int) -> None:
        os.environ.update(KEEP_MEMORY)  # read when a process starts
        self._pool = ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), _begin, (host, steps)
        )

    def map(self, name: str, work: Callable[[Studio, Jury, T], R], items: Iterable[T]) -> list[R]:
        """`work` for each item, in their order; it must be picklable."""
        todo, done = list(items), []
        for result in self._pool.map(_work, [work] * len(todo), todo):
            done.append(result)
            print(f"{name}: {len(done)} of {len(todo)}", flush=True)
        return done

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


_own: list[Any] = []  # this process's studio and jury


def _begin(host: Path | None, steps: int) -> None:
    torch.set_num_threads(1)
    launch.use_host(launch.HostOptions(host, cpu=True))
    from .jury import Jury
    from .studio import Studio

    studio = Studio.open(steps=steps)
    _own[:] = studio, Jury.seat(studio.analysis)


def _work(work: Callable[[Any, Any, T], R], item: T) -> R:
    studio, jury = _own
    return work(studio, jury, item)

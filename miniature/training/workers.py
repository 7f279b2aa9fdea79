"""Several processes with one thread each train one net on different samples; on a GPU one does."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed
import torch.multiprocessing
from torch.multiprocessing.spawn import ProcessException

from ...infinite_id.training.watch import watch_signals

T = TypeVar("T")


class StoppedError(Exception):
    """A run was asked to stop, and has saved its state."""


PATIENCE = timedelta(days=7)  # they wait so long for each other: training may be paused
# glibc frees large blocks at once; to get a convolution's again takes as long as to fill them.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def run(count: int, work: Callable[[], None]) -> bool:
    """Run `work` in `count` processes at once; it must be picklable.

    Returns:
        Whether it was done; if not, SIGINT or SIGTERM have ended it.
    """
    count = 1 if device().type == "cuda" else count
    os.environ.update(KEEP_MEMORY)  # read when a process starts
    with tempfile.TemporaryDirectory() as folder, watch_signals() as signals:
        meeting = (Path(folder) / "meeting").as_uri()
        started = torch.multiprocessing.spawn(
            _begin, (count, meeting, work), nprocs=count, join=False
        )
        try:
            while not started.join(timeout=1):
                if signals.asked:
                    for process in started.processes:
                        process.terminate()
                    for process in started.processes:
                        process.join()
                    return False
        except ProcessException:
            if not signals.asked:
                raise
            return False
    return True


def _begin(number: int, count: int, meeting: str, work: Callable[[], None]) -> None:
    # A terminal sends SIGINT to all processes, and torch sends it when the parent ends. A training
    # loop heeds it; the parent ends what else is at work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ranks = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in ranks.items()})
    os.environ.update(GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", meeting, rank=number, world_size=count, timeout=PATIENCE
    )
    try:
        work()
    except StoppedError:
        sys.exit(3)
    finally:
        if torch.distributed.is_initialized():  # the trainer's command leaves at its end
            torch.distributed.destroy_process_group()


def device() -> torch.device:
    """Return the device on which nets are trained."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def number() -> int:
    """Return the number of this process; number 0 writes the files."""
    return torch.distributed.get_rank()


def count() -> int:
    return torch.distributed.get_world_size()


def share(items: Sequence[T]) -> Sequence[T]:
    """Return this process's part of a list of tasks."""
    return items[number() :: count()]


def wait() -> None:
    """Wait until all processes are here: then files of process 0 can be read."""
    torch.distributed.barrier()

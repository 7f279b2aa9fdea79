"""Several processes with one thread each train one net on different samples; on a GPU one does."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed
import torch.multiprocessing

T = TypeVar("T")


PATIENCE = timedelta(days=7)  # they wait so long for each other: training may be paused
# glibc frees large blocks at once; to get a convolution's again takes as long as to fill them.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def run(count: int, work: Callable[[], None]) -> None:
    """Run `work` in `count` processes at once; it must be picklable."""
    count = 1 if device().type == "cuda" else count
    os.environ.update(KEEP_MEMORY)  # read when a process starts
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        torch.multiprocessing.spawn(_begin, (count, meeting, work), nprocs=count)


def _begin(number: int, count: int, meeting: str, work: Callable[[], None]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # torch sends it when the parent ends
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", meeting, rank=number, world_size=count, timeout=PATIENCE
    )
    work()
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


def average(tensors: list[torch.Tensor]) -> None:
    """Replace each tensor by its mean over all processes."""
    if count() == 1:
        return
    flat = torch.cat([x.flatten() for x in tensors])
    torch.distributed.all_reduce(flat)
    flat /= count()
    sizes = [x.numel() for x in tensors]
    for x, mean in zip(tensors, flat.split(sizes), strict=True):
        x.copy_(mean.view_as(x))

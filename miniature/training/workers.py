"""Several processes, one thread each, training one net on different samples; one with a GPU."""

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


PATIENCE = timedelta(days=7)  # with each other: training may be stopped and go on
# glibc gives large blocks back at once, and a convolution's take as long to get again as to fill.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def run(count: int, work: Callable[[], None]) -> None:
    """`work` in so many processes at once; it must be picklable."""
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
    """Where nets are trained."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def number() -> int:
    """This process's; the first, 0, writes the files."""
    return torch.distributed.get_rank()


def count() -> int:
    return torch.distributed.get_world_size()


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of a list of things to do."""
    return items[number() :: count()]


def wait() -> None:
    """Until all processes are here: what the first has written can be read then."""
    torch.distributed.barrier()


def average(tensors: list[torch.Tensor]) -> None:
    """Puts the mean over all processes into each of the tensors."""
    if count() == 1:
        return
    flat = torch.cat([x.flatten() for x in tensors])
    torch.distributed.all_reduce(flat)
    flat /= count()
    sizes = [x.numel() for x in tensors]
    for x, mean in zip(tensors, flat.split(sizes), strict=True):
        x.copy_(mean.view_as(x))

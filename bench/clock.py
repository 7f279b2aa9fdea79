"""A clock that waits for the GPU."""

from __future__ import annotations

import time

import torch


class Clock:
    """Seconds that a block takes: wall-clock time, and processor time of this process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = self.cpu_seconds = 0.0

    def __enter__(self) -> Clock:
        self._synchronise()
        self._start, self._cpu_start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._synchronise()
        self.seconds = time.perf_counter() - self._start
        self.cpu_seconds = time.process_time() - self._cpu_start

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

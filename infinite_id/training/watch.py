"""Observers of a run, which may stop it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

TOGETHER = 3.0


class Watch(Protocol):
    """Asked before each step's update, and told after it."""

    def stop(self) -> bool:
        """Whether to save and leave after this step."""
        ...

    def note(self, step: int, loss: float) -> None:
        """A step is done; `step` counts from 1."""
        ...


class Signals:
    """Stops a run on a process's signals, and ignores steps."""

    def __init__(self) -> None:
        self.asked = False

    def stop(self) -> bool:
        return self.asked

    def note(self, step: int, loss: float) -> None: ...


@contextmanager
def watch_signals() -> Iterator[Signals]:
    """Let SIGINT and SIGTERM ask to stop, inside the context. A second one acts as usual.

    What comes within `TOGETHER` seconds is one request: a signal to a group of processes reaches a
    child twice if its parent passes it on.
    """
    signals = Signals()
    before: dict[int, Any] = {}
    since = 0.0

    def ask(number: int, _: Any) -> None:
        nonlocal since
        if not signals.asked:
            signals.asked, since = True, time.monotonic()
        elif time.monotonic() - since > TOGETHER:
            signal.signal(number, before[number])
            signal.raise_signal(number)

    for number in (signal.SIGINT.value, signal.SIGTERM.value):
        before[number] = signal.signal(number, ask)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Who looks on while a run trains, and may stop it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Watch(Protocol):
    """Asked before each step's update, and told after it."""

    def stop(self) -> bool:
        """Whether to save and leave after this step."""
        ...

    def note(self, step: int, loss: float) -> None:
        """A step is done; `step` counts from 1."""
        ...


class Signals:
    """A process's signals; it has nothing to say of steps."""

    def __init__(self) -> None:
        self.asked = False

    def stop(self) -> bool:
        return self.asked

    def note(self, step: int, loss: float) -> None: ...


@contextmanager
def watch_signals() -> Iterator[Signals]:
    """Within it, SIGINT and SIGTERM ask to stop; a second one has its usual effect."""
    signals = Signals()
    before: dict[int, Any] = {}

    def ask(number: int, _: Any) -> None:
        signals.asked = True
        signal.signal(number, before[number])

    for number in (signal.SIGINT.value, signal.SIGTERM.value):
        before[number] = signal.signal(number, ask)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

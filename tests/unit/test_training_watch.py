"""Signals ask a run to stop."""

from __future__ import annotations

import signal

import pytest
from pack.infinite_id.training import watch
from pack.infinite_id.training.watch import watch_signals


def test_a_group_s_signal_that_the_parent_passes_on_is_one_request() -> None:
    """The second SIGTERM comes at once, and does not end the process before it has saved."""
    with watch_signals() as signals:
        assert not signals.stop()
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert signals.stop()


def test_a_later_signal_acts_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TOGETHER", -1.0)
    with watch_signals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with watch_signals():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

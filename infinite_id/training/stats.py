"""What a run tells: `stats.jsonl`, TensorBoard, a bar with the rate and the time left."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import to_json, to_json_lines, write_text
from ..progress import make_bar

FILE = "stats.jsonl"


class Stats:
    """Writes lines of numbers, each with its step. Only one of several processes does so."""

    def __init__(self, run: Path, step: int, steps: int, tensorboard: bool) -> None:
        """Go on after a step. Lines of later steps, from a run that was killed, are dropped."""
        self._path = run / FILE
        lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
        whole = [line for line in lines if line.endswith("}")]  # the last one may be cut off
        kept = [value for line in whole if (value := json.loads(line))["step"] <= step]
        write_text(self._path, to_json_lines(kept))
        self._board = _open_board(run, step) if tensorboard else None
        self._bar: Any = make_bar(steps, "training", "step", step)
        self._since, self._last = time.monotonic(), step

    def advance(self, shown: Mapping[str, float]) -> None:
        """Move the bar by one step, and show these numbers in it."""
        self._bar.set_postfix({name: f"{x:.4g}" for name, x in shown.items()}, refresh=False)
        self._bar.update()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a line, with the speed since the line before."""
        now = time.monotonic()
        speed = (step - self._last) / max(now - self._since, 1e-9)
        line = {"step": step, **values, "steps_per_second": round(speed, 4)}
        self._since, self._last = now, step
        self._append(line)

    def note(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a line about something else."""
        self._append({"step": step, **values})

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(to_json(line) + "\n")
        for name, value in line.items():
            if self._board is not None and name != "step" and isinstance(value, (int, float)):
                self._board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        self._bar.close()
        if self._board is not None:
            self._board.close()


def _open_board(run: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logging.warning("TensorBoard is not installed: `pip install -r requirements/training.txt`")
        return None
    return SummaryWriter(run / "tensorboard", purge_step=step + 1)


def read_losses(run: Path) -> list[float]:
    """The losses that a run has logged, in order."""
    lines = (run / FILE).read_text("utf-8").splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


class Silent:
    """Stands in for `Stats` in the other processes, and writes nothing."""

    def advance(self, shown: Mapping[str, float]) -> None: ...

    def write(self, step: int, values: Mapping[str, Any]) -> None: ...

    def note(self, step: int, values: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...

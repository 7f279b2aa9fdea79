"""Paths for every test: the host first, the checkout last; its modules are those of `pack`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

sys.path.append(str(ROOT))

if "COMFYUI_PATH" in os.environ:
    from pack.infinite_id import launch

    launch.use_host(launch.HostOptions(Path(os.environ["COMFYUI_PATH"]), cpu=True))

LEARNING = "training and metrics"
BUDGET = {"unit": 3, "host": 10, "server": 6, "browser": 6, LEARNING: 4}
"""Minutes of two cores that tests may take in CI, of 30; style and types have the rest."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how long the tests of each folder took, beside what they may take on two cores."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            parts = getattr(report, "nodeid", "").split("/")
            if parts[0] == "tests" and hasattr(report, "duration"):
                seconds[_room(parts[1], parts[2])] += report.duration
    spent = [
        f"{folder} {seconds[folder] / 120:.1f} of {minutes}"
        for folder, minutes in BUDGET.items()
        if seconds[folder]
    ]
    if spent:
        terminalreporter.write_line(f"minutes of two cores: {', '.join(spent)}")


def _room(folder: str, file: str) -> str:
    """Under which name of the budget a test counts."""
    learns = any(word in file for word in ("training", "metrics", "stable_identity"))
    return LEARNING if folder == "host" and learns else folder

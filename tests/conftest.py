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

BUDGET = {"unit": 3, "host": 10, "server": 6, "browser": 6}
"""Minutes of two cores that each folder may take in CI, of 30; style and types have the rest."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how long each folder of tests took, beside what it may take on two cores."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            parts = getattr(report, "nodeid", "").split("/")
            if parts[0] == "tests" and hasattr(report, "duration"):
                seconds[parts[1]] += report.duration
    spent = [
        f"{folder} {seconds[folder] / 120:.1f} of {minutes}"
        for folder, minutes in BUDGET.items()
        if seconds[folder]
    ]
    if spent:
        terminalreporter.write_line(f"minutes of two cores: {', '.join(spent)}")

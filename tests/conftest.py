"""Paths for every test: the host first, then the pack under the name `pack`.

The pack's `nodes/` would shadow the host's nodes.py if the repository's root were on the path, so
it is not: its modules are imported as `pack.infinite_id...`, relative imports and all.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]

pack = ModuleType("pack")
pack.__path__ = [str(ROOT)]
sys.modules["pack"] = pack

if "COMFYUI_PATH" in os.environ:
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    from comfy.cli_args import args

    args.cpu = True
    args.use_pytorch_cross_attention = True

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

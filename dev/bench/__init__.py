"""`python -m dev bench`: what the pack costs, timed and counted, beside what it must cost."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

from ..cache import ROOT
from ..comfyui import host_folder


def bench(arguments: Sequence[str]) -> int:
    """Measure and write `docs/benchmark.md`.

    The host goes first on the path: the checkout's `nodes/` would hide its nodes.py.
    """
    sys.path.insert(0, str(host_folder()))
    pack = ModuleType("pack")
    pack.__path__ = [str(ROOT)]
    sys.modules["pack"] = pack
    from pack.dev.bench.command import main

    return main(arguments)

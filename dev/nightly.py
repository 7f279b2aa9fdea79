"""Draw pairs of nodes and savings for a time: `python -m dev nightly --minutes 60`.

Each round has a seed of its own, which is printed. Cases that failed are kept in the cache, and
the next round begins with them.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time

from .cache import ROOT, cache_root
from .comfyui import host_folder

TESTS = "tests/host/test_pairs.py"


def nightly(minutes: float) -> int:
    """Run rounds until the time is over or one fails; return the last one's exit code."""
    end = time.monotonic() + 60 * minutes
    environment = {
        **os.environ,
        "COMFYUI_PATH": str(host_folder()),
        "INFINITE_ID_NIGHTLY": str(cache_root() / "hypothesis"),
        "OMP_NUM_THREADS": "1",
    }
    code = 0
    while not code and time.monotonic() < end:
        seed = str(secrets.randbits(32))
        print(
            f"[nightly] seed {seed}, {(end - time.monotonic()) / 60:.0f} minutes left", flush=True
        )
        command = [sys.executable, "-m", "pytest", "-q", TESTS, f"--hypothesis-seed={seed}"]
        code = subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode
    return code

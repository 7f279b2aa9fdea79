"""Runs the slow tests, then random pairs of nodes: `python -m dev nightly --minutes 60`.

First come the tests marked `nightly`. Then pairs of nodes and savings are drawn until the time is
over. Each round has a seed of its own, which is printed. Cases that failed are kept in the cache,
and the next round begins with them.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time

from .cache import ROOT, cache_root
from .check import AT_ONCE
from .comfyui import host_folder
from .face_pack import face_root

TESTS = "tests/host/test_pairs.py"


def nightly(minutes: float) -> int:
    """Run rounds until the time is over or one fails; return the first failure's exit code."""
    environment = {
        **os.environ,
        "COMFYUI_PATH": str(host_folder()),
        "INFINITE_ID_FACE_ROOT": str(face_root()),
        "INFINITE_ID_NIGHTLY": str(cache_root() / "hypothesis"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-m", "nightly", "tests", *AT_ONCE]
    code = subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode
    end = time.monotonic() + 60 * minutes
    while not code and time.monotonic() < end:
        seed = str(secrets.randbits(32))
        print(
            f"[nightly] seed {seed}, {(end - time.monotonic()) / 60:.0f} minutes left", flush=True
        )
        command = [sys.executable, "-m", "pytest", "-q", TESTS, f"--hypothesis-seed={seed}"]
        code = subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode
    return code

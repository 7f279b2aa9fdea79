"""What `python -m dev test` runs: style, types, tests. Runs inside the environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .cache import ROOT
from .comfyui import host_folder, typed_folder
from .face_pack import face_root

STYLE = (("ruff", "check", "."), ("ruff", "format", "--check", "."))
AT_ONCE = ("--numprocesses", "auto", "--dist", "loadfile", "--no-loadscope-reorder")
SLOWEST = ("--durations", "40", "--durations-min", "3")
DAILY = ("-m", "not nightly")
QUICK = ("tests/unit", "-m", "not slow", "-q", *AT_ONCE)
PACKAGES = ("infinite_id", "nodes", "miniature", "bench", "gallery", "dev", "tests")


def check(pytest_arguments: Sequence[str]) -> int:
    """Run every check, then pytest with these arguments; return the first failure's exit code.

    Without arguments pytest runs a process on each core, without the nightly tests.
    """
    environment = {
        **os.environ,
        "COMFYUI_PATH": str(host_folder()),
        "INFINITE_ID_FACE_ROOT": str(face_root()),
        "OMP_NUM_THREADS": "1",  # threads of several processes would wait for one another
    }
    with tempfile.TemporaryDirectory() as folder:
        tests = pytest_arguments or (*AT_ONCE, *SLOWEST, *DAILY)
        commands = [*STYLE, _types(Path(folder)), ("pytest", *tests)]
        path = os.pathsep.join([folder, str(typed_folder())])
        codes = [_run(command, environment | {"MYPYPATH": path}) for command in commands]
    return next((code for code in codes if code), 0)


def _types(folder: Path) -> tuple[str, ...]:
    """Check the pack as the package `pack`, whatever the checkout's own folder is called."""
    (folder / "pack").symlink_to(ROOT, target_is_directory=True)
    return ("mypy", *(word for name in PACKAGES for word in ("--package", f"pack.{name}")))


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    shown = " ".join(command)
    print(f"[test] {shown}", flush=True)
    start = time.perf_counter()
    python = [sys.executable, "-m"]
    done = subprocess.run([*python, *command], check=False, cwd=ROOT, env=environment)
    verdict = f"failed ({done.returncode})" if done.returncode else "passed"
    print(f"[test] {shown}: {verdict}, {time.perf_counter() - start:.1f} s", flush=True)
    return done.returncode

"""How the developer's server ends: at its start, and when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from pack.dev.cache import ROOT
from pack.dev.server import running_server
from pack.dev.server_api import ServerError

# The tests' COMFYUI_PATH stands for another environment, which this would else set up.
SERVE = """
import sys
from pack.dev import command, environment
environment.is_current = lambda command: True
sys.exit(command.main(["serve"]))
"""


def test_a_server_that_dies_at_start_shows_its_log() -> None:
    with (
        pytest.raises(ServerError, match=r"unrecognized arguments: --no-such-option"),
        running_server(arguments=["--no-such-option"]),
    ):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
def test_serve_leaves_nothing_behind_when_it_is_terminated(tmp_path: Path) -> None:
    """Twice: a supervisor may tell the process and its group."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert any(line.startswith("Open http") for line in process.stdout)
        started = psutil.Process(process.pid).children(recursive=True)
        assert started
        assert list(tmp_path.glob("infinite-id-*"))
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    assert not [child for child in started if child.is_running()]
    assert not list(tmp_path.glob("infinite-id-*"))

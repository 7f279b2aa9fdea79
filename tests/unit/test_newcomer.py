"""What a newcomer meets: the folder's name, a browser that cannot be installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pack.dev import browser
from pack.dev.cache import ROOT, SetUpError
from pack.dev.server import PACK

NO_CODE = shutil.ignore_patterns(".*", "*.safetensors", "*.png", "*.jpg", "*.json", "*.md")


def test_style_holds_under_the_name_that_users_clone_into(tmp_path: Path) -> None:
    """A copy: through a link ruff sees the checkout's own name."""
    copy = tmp_path / "with a space" / PACK
    shutil.copytree(ROOT, copy, ignore=NO_CODE)
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "."]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_why_no_browser_could_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 100, "Could not get lock; held by apt\n")

    monkeypatch.setattr(browser, "_find", lambda: None)
    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(SetUpError, match=r"playwright install.* with 100:\nCould not get lock"):
        browser.chromium()

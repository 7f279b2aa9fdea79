"""Set-up where it cannot be done: a sentence with what to do, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pack.dev import browser
from pack.dev.cache import ROOT, SetUpError, build


def run(*arguments: str, **variables: str) -> str:
    """What `python -m dev` says as it fails."""
    kept = {name: x for name, x in os.environ.items() if name not in ("COMFYUI_PATH", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, "-m", "dev", *arguments],
        cwd=ROOT,
        env={**kept, **variables},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("command", [["setup"], ["face-pack", "--to", "anywhere"]])
def test_a_cache_that_cannot_be_written(tmp_path: Path, command: list[str]) -> None:
    """A file in the folder's place: nobody may write below it, not even an administrator."""
    (tmp_path / "file").touch()
    said = run(*command, INFINITE_ID_CACHE=str(tmp_path / "file" / "cache"))
    assert said.startswith("error: ")
    assert "cannot be made" in said
    assert "set INFINITE_ID_CACHE to a folder that you may write to" in said


def test_a_folder_that_is_no_whole_comfyui(tmp_path: Path) -> None:
    (tmp_path / "comfy").mkdir()
    said = run("setup", COMFYUI_PATH=str(tmp_path))
    assert said.endswith("is not a ComfyUI: no main.py, requirements.txt there.\n")


def test_a_browser_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROME", "/nowhere/chrome")
    with pytest.raises(SetUpError, match=r"CHROME=/nowhere/chrome is no program.*or unset it"):
        browser.chromium()


def test_a_drive_that_fills_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINITE_ID_CACHE", str(tmp_path))

    def make(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(SetUpError, match=r"entry cannot be made \(No space left on device\)"):
        build("entry", "Making", make)
    assert not list(tmp_path.iterdir())

"""The ablations' command, with few people and steps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from pack.miniature.shapes import FOLDER

SMALL = ("--people", "1", "--pictures", "12", "--steps", "2")


def run(folder: Path, processes: int) -> dict[str, bytes]:
    """Every file of the report."""
    out = folder / "ablation.md"
    folder.mkdir()
    command = [sys.executable, "-P", "-m", "miniature.ablation", "--host"]
    options = [os.environ["COMFYUI_PATH"], "--out", str(out), "--processes", str(processes), *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    subprocess.run([*command, *options], env=environment, check=True, timeout=900)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_same_seeds_give_the_same_report(tmp_path: Path) -> None:
    """In one process or in two."""
    found = run(tmp_path / "one", processes=1)
    assert found == run(tmp_path / "two", processes=2)
    page = found["ablation.md"].decode()
    shown = {f"ablation/{name}" for name in re.findall(r"\(ablation/(.+?)\)", page)}
    assert shown == found.keys() - {"ablation.md"}
    assert "nan" not in page

"""The commands that repeat the ablations and measure refining, with few people and steps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pack.infinite_id.metrics.material import read_material
from pack.miniature.shapes import FOLDER

SMALL = ("--people", "1", "--pictures", "12", "--steps", "2")


def run(folder: Path, processes: int) -> dict[str, bytes]:
    """Every file of the report, and of the pictures that are kept."""
    out = folder / "report" / "ablation.md"
    out.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "miniature.ablation", "--host"]
    options = [os.environ["COMFYUI_PATH"], "--out", str(out), "--keep", str(folder / "kept")]
    options += ["--processes", str(processes), *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    subprocess.run([*command, *options], env=environment, check=True, timeout=900)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.nightly
def test_the_same_seeds_give_the_same_report(tmp_path: Path) -> None:
    """In one process or in two."""
    found = run(tmp_path / "one", processes=1)
    assert found == run(tmp_path / "two", processes=2)
    page = found["report/ablation.md"].decode()
    shown = {f"report/ablation/{name}" for name in re.findall(r"\(ablation/(.+?)\)", page)}
    assert shown == {name for name in found if name.startswith("report/ablation/")}
    assert "nan" not in page
    kept = read_material(tmp_path / "one" / "kept" / "pictures.csv")
    assert len(kept.methods) == 6
    assert len(kept.pictures) == 6 * 4
    assert [len(photos) for photos in kept.photos.values()] == [4]
    assert all(picture.path.is_file() and picture.text for picture in kept.pictures)


@pytest.mark.nightly
def test_what_refining_gains(tmp_path: Path) -> None:
    """A few steps are hardly felt: the three ways are listed, and the picture is there."""
    out = tmp_path / "refining.md"
    command = [sys.executable, "-m", "miniature.refining", "--host", os.environ["COMFYUI_PATH"]]
    options = ["--people", "2", "--steps", "2", "--processes", "1", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    subprocess.run([*command, *options], env=environment, check=True, timeout=900)
    page = out.read_text(encoding="utf-8")
    numbers = r"-?\d\.\d{3} \[-?\d\.\d{3}, -?\d\.\d{3}\]"
    for way in ("encoded from one photo", "encoded from four photos", "refined on the four"):
        assert re.search(rf"\| {way} \| {numbers} \| {numbers} \|", page)
    assert (tmp_path / "refining" / "people.jpg").is_file()

"""`python -m dev compatibility`: the host part of the suite on several versions of ComfyUI.

Results are kept in the cache, one file for each test file and host, under a key of all that the
test depends on. Passed files are not run again. So hosts can be run one by one, and an interrupted
run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..cache import ROOT, cache_root
from ..comfyui import VERSIONS, download
from ..face_pack import face_root
from ..server import PACK_CONTENTS
from .document import write_document
from .results import Host, Result

RECORDER = Path(__file__).with_name("recorder.py")
FOLDERS = ("tests/host", "tests/server")
OWN_AFFAIRS = {"test_remake", "test_ablation"}  # how the miniature is made and what it shows
AT_ONCE = 8
"""Test files of one process. All of them in one process took 13 GB in the end."""
SOURCES = (
    *PACK_CONTENTS,
    "miniature",
    "pack.py",
    "bench/*.py",
    "gallery",
    "dev/*.py",
    "tests/conftest.py",
    "tests/unit/corrupt_files.py",
    "tests/unit/test_mappers.py",
)
"""Files that the tests run or read outside their own folders."""


def compatibility(versions: Sequence[str]) -> int:
    """Run the files that have not passed yet on these versions, and write the whole table.

    Returns 1 if a test failed on any of them.
    """
    for version in versions:
        _run(version)
    hosts = [Host(version, _read(version)) for version in sorted(VERSIONS, key=_number)]
    write_document(hosts)
    chosen = [host for host in hosts if host.version in versions]
    return int(any(test.outcome == "failed" for host in chosen for test in host.tests))


def _run(version: str) -> None:
    kept = {path: _kept(path, version) for path in test_files()}
    to_run = {path: file for path, file in kept.items() if not _has_passed(file)}
    done = len(kept) - len(to_run)
    print(f"[compatibility] ComfyUI {version}: {done} of {len(kept)} test files are kept")
    if not to_run:
        return
    print(f"[compatibility] {len(to_run)} to run, {_estimate(list(to_run))}", flush=True)
    folder = download(Path(sys.executable), version)
    for path, file in to_run.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        for old in file.parent.glob(f"{path.stem}-*.json"):
            old.unlink()
    environment = {
        **os.environ,
        "COMFYUI_PATH": str(folder),
        "INFINITE_ID_FACE_ROOT": str(face_root()),
    }
    targets = [(path.relative_to(ROOT).as_posix(), str(file)) for path, file in to_run.items()]
    for n in range(0, len(targets), AT_ONCE):
        command = [sys.executable, str(RECORDER), json.dumps(dict(targets[n : n + AT_ONCE]))]
        subprocess.run(command, check=False, cwd=ROOT, env=environment)


def test_files() -> list[Path]:
    found = (path for name in FOLDERS for path in sorted((ROOT / name).glob("test_*.py")))
    return [path for path in found if path.stem not in OWN_AFFAIRS]


def _kept(path: Path, version: str) -> Path:
    """Return the path of a test file's result; it has the folder, as two files share a name."""
    folder = cache_root() / "compatibility" / version / path.parent.name
    key = hashlib.sha256(_helpers(path.parent).encode() + path.read_bytes()).hexdigest()[:12]
    return folder / f"{path.stem}-{key}.json"


@cache
def _helpers(folder: Path) -> str:
    """Return a key of all that a test file depends on, but not of the file itself."""
    digest = hashlib.sha256()
    for path in list_sources(folder):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def list_sources(folder: Path) -> Iterator[Path]:
    """Yield the files that all tests of a folder depend on."""
    for pattern in SOURCES:
        for found in sorted(ROOT.glob(pattern)):
            files = sorted(found.rglob("*")) if found.is_dir() else [found]
            yield from (f for f in files if f.is_file() and "__pycache__" not in f.parts)
    yield from (path for path in sorted(folder.glob("*.py")) if not path.name.startswith("test_"))


def _load(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _has_passed(file: Path) -> bool:
    return file.exists() and all(
        test["outcome"] != "failed" for test in _load(file)["tests"].values()
    )


def _read(version: str) -> list[Result]:
    """Read the results of a host that are valid for the current code."""
    files = [file for path in test_files() if (file := _kept(path, version)).exists()]
    return [
        Result(nodeid, content["title"], **test)
        for content in map(_load, files)
        for nodeid, test in content["tests"].items()
    ]


def _estimate(paths: list[Path]) -> str:
    """Estimate the duration from the last time of each file, on any host."""
    known = [seconds for path in paths if (seconds := _last_seconds(path)) is not None]
    if not known:
        return "no earlier run to estimate the time by"
    minutes = sum(known) / len(known) * len(paths) / 60
    return f"about {minutes:.0f} minutes by earlier runs of {len(known)} of them"


def _last_seconds(path: Path) -> float | None:
    folder = cache_root() / "compatibility"
    found = folder.glob(f"*/{path.parent.name}/{path.stem}-*.json")
    newest = max(found, key=lambda file: file.stat().st_mtime, default=None)
    if newest is None:
        return None
    return float(sum(test["seconds"] for test in _load(newest)["tests"].values()))


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))

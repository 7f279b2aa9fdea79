"""Where set-up keeps what it made: one folder per user, outside the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class SetUpError(Exception):
    """Set-up cannot go on; the message says what to do."""


def cache_root() -> Path:
    """`INFINITE_ID_CACHE`, or the folder that the operating system has for caches."""
    chosen = os.environ.get("INFINITE_ID_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    if sys.platform == "win32":
        return Path(os.environ["LOCALAPPDATA"]) / "infinite-id"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "infinite-id"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "infinite-id"


def fingerprint(*parts: str | Path) -> str:
    """Return twelve hex digits of a digest of the texts and of the contents of the paths."""
    digest = hashlib.sha256()
    for part in parts:
        text = part if isinstance(part, str) else part.read_text(encoding="utf-8")
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:12]


def build(name: str, saying: str, make: Callable[[Path], None]) -> Path:
    """Return the cache entry `name`; if it does not exist yet, make it by `make(folder)`.

    `make` fills a sibling folder that takes the entry's name only when `make` has returned, so a
    broken download leaves nothing that looks complete. If several processes make the same entry,
    the first one's stays. `name` must state what the entry holds.

    Raises SetUpError when the cache cannot be written to.
    """
    entry = cache_root() / name
    with writing(entry):
        if not entry.exists():
            entry.parent.mkdir(parents=True, exist_ok=True)
            _build(entry, saying, make)
    return entry


def _build(entry: Path, saying: str, make: Callable[[Path], None]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=f"{entry.name}.partial-", dir=entry.parent))
    try:
        with step(saying):
            make(partial)
        try:
            partial.rename(entry)
        except OSError:
            if not entry.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def writing(entry: Path) -> Iterator[None]:
    """Raise a SetUpError that says what to do if the cache or its drive fails."""
    try:
        yield
    except OSError as error:
        raise SetUpError(
            f"{entry} cannot be made ({error.strerror or error}). Make room on that drive, or set "
            "INFINITE_ID_CACHE to a folder that you may write to."
        ) from error


@contextmanager
def step(saying: str) -> Iterator[None]:
    """Print one line: what is being done, and how long it took."""
    print(f"[set-up] {saying} ...", end="", flush=True)
    start = time.perf_counter()
    try:
        yield
    except BaseException:
        print(" failed", flush=True)
        raise
    print(f" {time.perf_counter() - start:.1f} s", flush=True)


def run_quietly(command: Sequence[str | Path]) -> None:
    """Run a command, showing its output only when it fails.

    Raises SetUpError with the end of the output when the command fails.
    """
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        shown = " ".join(str(word) for word in command)
        output = done.stdout.decode(errors="replace")[-3000:]
        raise SetUpError(f"`{shown}` failed ({done.returncode}):\n{output}")


def pip(python: Path, *arguments: str | Path) -> None:
    """Run that Python's pip. Raises SetUpError when it fails."""
    run_quietly([python, "-m", "pip", "--disable-pip-version-check", *arguments])


def download_source(python: Path, requirement: str, folder: Path, *options: str) -> Path:
    """Download a source distribution by pip and return the archive's path."""
    name = requirement.partition("==")[0]
    chosen = ("--no-deps", "--no-binary", name, "--dest", str(folder), *options)
    pip(python, "download", *chosen, requirement)
    return next(folder.glob("*.tar.gz"))

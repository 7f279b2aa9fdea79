"""Folders that may be locked, gone, on a drive that is down, or on one that never answers.

A folder that cannot be read becomes a sentence beside the list, never an exception. The host asks
for the lists when it starts, and a node whose list fails would be missing.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator
from functools import cache
from os.path import exists
from pathlib import Path
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that a folder may take; one that takes longer is listed once it has answered."""

_GONE = (errno.ENOENT, errno.ENOTDIR)

_unanswered: dict[object, Thread] = {}


def ask(key: object, question: Callable[[], T]) -> T:
    """Return the answer of a function that reads folders; a dead network drive may never answer.

    Args:
        key: names the question. It is not asked again while it is unanswered.

    Raises:
        TimeoutError: if there is no answer in `PATIENCE`.
        OSError: if the function raises it.
    """
    thread = _unanswered.get(key)
    if thread is not None and thread.is_alive():
        raise _no_answer()
    answers: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            answers.append(question())
        except Exception as error:  # raised again below
            errors.append(error)

    thread = _unanswered[key] = Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        raise _no_answer()
    del _unanswered[key]
    for error in errors:
        raise error
    return answers[0]


def _no_answer() -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, f"no answer in {PATIENCE:g} seconds")


def describe_failure(place: Path | str, error: OSError) -> str:
    """Say what cannot be read, why, and what to do."""
    reason = error.strerror or str(error) or type(error).__name__
    if isinstance(error, PermissionError):
        advice = "Give the account that runs ComfyUI the right to read it"
    elif error.errno == errno.ELOOP:
        advice = "Remove the link that leads to itself"
    else:
        advice = (
            "Connect the drive that it is on, or take it out of extra_model_paths.yaml, and "
            "restart ComfyUI"
        )
    return f"{show(place)} cannot be read ({reason}). {advice}."


def show(name: Path | str) -> str:
    """Return a name on one line, in characters that every log can hold."""
    text = str(name)
    return text if text.isprintable() else ascii(text)[1:-1]


def walk(
    root: Path, note: Callable[[Path, OSError], object], deep: bool = True, links: bool = True
) -> Iterator[Path]:
    """Yield every file below a folder. Each folder is entered once, whatever links lead to it.

    Args:
        deep: enter its subfolders; links: enter subfolders that are links, too.
        note: called for each folder that cannot be read; a missing one counts as empty.
    """

    def failed(error: OSError) -> None:
        if error.errno not in _GONE:
            note(Path(error.filename or root), error)

    seen = set()
    for folder, folders, files in os.walk(root, onerror=failed, followlinks=links):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in sorted(folders) if deep and name != ".git"]
        paths = (Path(folder, name) for name in sorted(files))
        yield from (path for path in paths if exists(path))  # noqa: PTH110  # it never raises


def find_below(root: Path, name: str) -> Path | None:
    """A file below a folder; None if there is none. Raises OSError if that cannot be told."""
    path = root / name
    try:
        return path if ask(("find", path), path.stat) and path.is_file() else None
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    except ValueError:  # a name that no file can have
        return None


@cache
def warn(sentence: str) -> None:
    """Write a sentence to the log, once."""
    logging.warning("Infinite-ID: %s", sentence)

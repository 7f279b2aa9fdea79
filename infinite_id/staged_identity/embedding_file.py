"""An ordinary embedding of staged words: their mean, for use without nodes.

A textual-inversion `.safetensors` with a tensor `(m, d)` float32 for each text encoder, named as
the host looks for it. The format in its metadata is "staged-identity-mean", the version "1".
"""

from __future__ import annotations

from pathlib import Path

from ..tensor_files import FormatError
from ..words.files import KEYS, Kind, load_rows, save_rows
from .staged_file import MOST_ROWS, Staged

KIND = Kind(
    format="staged-identity-mean",
    version="1",
    foreign="is no mean of staged words.",
    parts=("",),
    leading=((1, MOST_ROWS),),
    wanted=f"such a mean has 1 to {MOST_ROWS} rows for each of {', '.join(KEYS)}.",
)


def save(staged: Staged, path: Path) -> None:
    """Write an embedding, in place of an earlier one.

    Raises:
        OSError: saying what cannot be written, and what to do.
    """
    save_rows(KIND, staged.words.mean(), staged.origin, path, replaces=True)


def read_run(path: Path) -> str | None:
    """Return the digest of the run that an embedding is from; None for any other file."""
    try:
        return load_rows(KIND, path)[1].run
    except (FormatError, OSError):
        return None

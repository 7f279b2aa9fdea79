"""An ordinary embedding of staged words: their mean, for use without nodes.

A textual-inversion `.safetensors` with a tensor `(m, d)` float32 for each text encoder, named as
the host looks for it. The format in its metadata is "staged-identity-mean", the version "1".
"""

from __future__ import annotations

from pathlib import Path

from ..tensor_files import FormatError, open_tensors, write_tensors
from ..words.files import check_header, write_rows
from .staged_file import Staged

FORMAT, VERSION = "staged-identity-mean", "1"


def save(staged: Staged, path: Path) -> None:
    """Write an embedding, in place of an earlier one.

    Raises:
        OSError: saying what cannot be written, and what to do.
    """
    metadata = {"format": FORMAT, "version": VERSION, **staged.origin.write()}
    write_tensors(write_rows(path, staged.words.mean()), path, metadata)


def read_run(path: Path) -> str | None:
    """Return the digest of the run that an embedding is from; None for any other file."""
    try:
        check_header(path)
        with open_tensors(path) as file:
            is_own = file.metadata.get("format") == FORMAT
            return file.metadata.get("run", "") if is_own else None
    except (FormatError, OSError):
        return None

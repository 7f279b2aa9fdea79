"""The embedding file: a person's two words, as any ComfyUI reads them.

An ordinary textual-inversion `.safetensors` with a tensor `(2, d)` float32 for each text encoder,
named as the host looks for it: `clip_l`, `clip_g`, `clip_h`. Its metadata says where it is from,
see `words.files`; the format is "stable-identity-words", the version "1".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..tensor_files import FormatError, TensorFile, open_tensors, write_tensors
from ..words.files import (
    KEYS,
    WIDEST,
    Origin,
    Rows,
    check_header,
    read_origin,
    read_rows,
    write_rows,
)
from .celebs import WORDS

FORMAT, VERSION = "stable-identity-words", "1"


@dataclass(frozen=True)
class Words:
    """A learned identity.

    Attributes:
        rows: `(2, d)` float32 of each text encoder.
        tables: digests of the token tables that they were learnt among.
        provenance: plain values, for information only.
    """

    rows: Rows
    tables: Mapping[str, str]
    run: str
    provenance: Mapping[str, Any]


def save(words: Words, path: Path, replaces: bool) -> None:
    """Write an embedding; it appears under its name only when it is complete.

    Raises:
        FileExistsError: if there is a file and it is not to be replaced.
        OSError: saying what cannot be written, and what to do.
        FormatError: if rows are not finite.
    """
    tensors = write_rows(path, words.rows)
    origin = Origin(words.run, words.tables, words.provenance)
    metadata = {"format": FORMAT, "version": VERSION, **origin.write()}
    write_tensors(tensors, path, metadata, is_new=not replaces)


def load(path: Path) -> Words:
    """Read an embedding that `save` has written.

    Raises:
        FormatError: if it is another file, or damaged; sizes are checked before anything is read.
        FileNotFoundError: if there is none.
    """
    check_header(path)
    with open_tensors(path) as file:
        if file.metadata.get("format") != FORMAT or file.metadata.get("version") != VERSION:
            raise FormatError(
                f"{path.name} is no embedding that Learn Identity Embedding has written, or one of "
                "another version. Choose one of its files."
            )
        _check_shapes(file)
        origin, rows = read_origin(file), read_rows(file)
    return Words(rows, origin.tables, origin.run, origin.provenance)


def _check_shapes(file: TensorFile) -> None:
    file.check_floats()
    fits = file.shapes and all(
        key in KEYS and len(shape) == 2 and shape[0] == WORDS and 0 < shape[1] <= WIDEST
        for key, shape in file.shapes.items()
    )
    if not fits:
        listed = ", ".join(f"{key[:40]} {shape}" for key, shape in list(file.shapes.items())[:5])
        raise FormatError(
            f"{file.path.name} holds {listed}; a learned identity has {WORDS} rows for each of "
            f"{', '.join(KEYS)}."
        )


def read_run(path: Path) -> str | None:
    """Return the digest of the run that wrote a file; None for any other file."""
    try:
        return load(path).run
    except (FormatError, OSError):
        return None


def mix(a: Words, b: Words, share: float, run: str) -> Words:
    """Interpolate the rows of two learned identities; share 0 gives the first, 1 the second.

    Raises:
        FormatError: if they are for different CLIPs.
    """
    if dict(a.tables) != dict(b.tables):
        raise FormatError(
            "The two embeddings were learnt for different CLIPs "
            f"({', '.join(a.rows)} and {', '.join(b.rows)}, or other weights of them), so nothing "
            "lies between them. Learn both with the same model."
        )
    rows = {key: torch.lerp(a.rows[key], b.rows[key], share) for key in a.rows}
    origin = {"mix": [dict(a.provenance), dict(b.provenance)], "share": share}
    return Words(rows, a.tables, run, origin)

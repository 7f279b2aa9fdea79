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

from ..tensor_files import FormatError
from ..words.files import KEYS, Kind, Origin, Rows, load_rows, save_rows
from .celebs import WORDS

KIND = Kind(
    format="stable-identity-words",
    version="1",
    foreign="is no embedding that Learn Identity Embedding has written, or one of another "
    "version. Choose one of its files.",
    parts=("",),
    leading=((WORDS, WORDS),),
    wanted=f"a learned identity has {WORDS} rows for each of {', '.join(KEYS)}.",
)


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
    """Write an embedding, as `words.files.save_rows` says."""
    origin = Origin(words.run, words.tables, words.provenance)
    save_rows(KIND, words.rows, origin, path, replaces)


def load(path: Path) -> Words:
    """Read an embedding that `save` has written; see `words.files.load_rows`."""
    rows, origin = load_rows(KIND, path)
    return Words(rows, origin.tables, origin.run, origin.provenance)


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

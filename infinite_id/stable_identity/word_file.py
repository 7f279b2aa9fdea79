"""The embedding file: a person's two words, as any ComfyUI reads them.

An ordinary textual-inversion `.safetensors` with a tensor `(2, d)` float32 for each text encoder,
named as the host looks for it: `clip_l`, `clip_g`, `clip_h`. Its metadata says where it is from:

    format: "stable-identity-words"; version: "1"
    run: digest of all that decides what is learnt, but the number of steps
    tables: JSON, digests of the token tables by encoder: on these CLIPs the words hold
    provenance: JSON, such as steps, digests of the photos, the face encoder, settings
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..tensor_files import FormatError, TensorFile, open_tensors, read_start, write_tensors
from .celebs import WORDS
from .mapper import Rows

FORMAT, VERSION = "stable-identity-words", "1"
KEYS = ("clip_l", "clip_g", "clip_h")
"""What the host calls the text encoders, in its tokenizers and files."""
_WIDEST = 8192
_MAX_HEADER = 1 << 20  # bytes


@dataclass(frozen=True)
class Words:
    """A learned identity.

    Attributes:
        rows: `(2, d)` float32 of each text encoder.
        tables: digests of the token tables that they were learnt among.
        provenance: plain values; nothing is decided by them.
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
    for key, rows in words.rows.items():
        if not rows.isfinite().all():
            raise FormatError(
                f"{path.name}: the words for {key} hold values that are not numbers. Learn again "
                "with a lower learning_rate."
            )
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "run": words.run,
        "tables": json.dumps(dict(words.tables), sort_keys=True),
        "provenance": json.dumps(dict(words.provenance), sort_keys=True, ensure_ascii=False),
    }
    tensors = {key: rows.detach().float().cpu().contiguous() for key, rows in words.rows.items()}
    write_tensors(tensors, path, metadata, is_new=not replaces)


def load(path: Path) -> Words:
    """Read an embedding that `save` has written.

    Raises:
        FormatError: if it is another file, or damaged; sizes are checked before anything is read.
        FileNotFoundError: if there is none.
    """
    _check_header(path)
    with open_tensors(path) as file:
        if file.metadata.get("format") != FORMAT or file.metadata.get("version") != VERSION:
            raise FormatError(
                f"{path.name} is no embedding that Learn Identity Embedding has written, or one of "
                "another version. Choose one of its files."
            )
        _check_shapes(file)
        texts = {name: file.metadata.get(name, "") for name in ("tables", "provenance")}
        try:
            tables, provenance = (dict(json.loads(text)) for text in texts.values())
        except (ValueError, TypeError, RecursionError) as error:
            raise FormatError(f"{path.name}: its metadata is damaged. Learn it again.") from error
        rows = {key: file.read(key).float().clone() for key in file.shapes}
    if not all(x.isfinite().all() for x in rows.values()):
        raise FormatError(f"{path.name} holds values that are not numbers. Learn it again.")
    named = {str(key): str(value) for key, value in tables.items()}
    return Words(rows, named, file.metadata.get("run", ""), provenance)


def _check_header(path: Path) -> None:
    if int.from_bytes(read_start(path, 8), "little") > _MAX_HEADER:
        raise FormatError(f"{path.name} is no embedding: its header is too long for one.")


def _check_shapes(file: TensorFile) -> None:
    file.check_floats()
    fits = file.shapes and all(
        key in KEYS and len(shape) == 2 and shape[0] == WORDS and 0 < shape[1] <= _WIDEST
        for key, shape in file.shapes.items()
    )
    if not fits:
        listed = ", ".join(f"{key[:40]} {shape}" for key, shape in list(file.shapes.items())[:5])
        raise FormatError(
            f"{file.path.name} holds {listed}; a learned identity has {WORDS} rows for each of "
            f"{', '.join(KEYS)}."
        )


def is_own(path: Path) -> bool:
    """Whether a file is one that `save` has written."""
    return read_run(path) is not None


def read_run(path: Path) -> str | None:
    """The digest of the run that a file is of; None for any other file."""
    try:
        return load(path).run
    except (FormatError, OSError):
        return None


def mix(a: Words, b: Words, share: float, run: str) -> Words:
    """Interpolate two learned identities' rows; a share of 0 is the first, 1 the second.

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

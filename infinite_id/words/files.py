"""The common part of files of words: their text encoders and their origin.

The metadata of each has, beside its format and version:

    run: digest of all that determines what is learnt, except the number of steps
    tables: JSON, digests of the token tables by encoder; the words fit CLIPs with these tables
    provenance: JSON, such as steps, digests of the photos, settings; for information only
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..tensor_files import FormatError, TensorFile, open_tensors, read_start, write_tensors

KEYS = ("clip_l", "clip_g", "clip_h")
"""The host's names of the text encoders, in its tokenizers and files."""
WIDEST = 8192
"""The greatest width of a token's row."""
_MAX_HEADER = 1 << 20  # bytes

Rows = dict[str, Tensor]
"""Rows `(..., d)` by the key of the text encoder, such as "clip_l"."""


@dataclass(frozen=True)
class Origin:
    """The origin of words.

    Attributes:
        tables: digests of the token tables that they were learnt among.
    """

    run: str
    tables: Mapping[str, str]
    provenance: Mapping[str, Any]

    def write(self) -> dict[str, str]:
        """Return the origin as metadata."""
        return {
            "run": self.run,
            "tables": json.dumps(dict(self.tables), sort_keys=True),
            "provenance": json.dumps(dict(self.provenance), sort_keys=True, ensure_ascii=False),
        }


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        foreign: what the user is told of a file of another kind, behind its name.
        parts: the ends of the names of an encoder's tensors, which all have the same shape.
        leading: the least and the most of each dimension before the width; all tensors have the
            same there.
        wanted: what the user is told of other shapes.
    """

    format: str
    version: str
    foreign: str
    parts: tuple[str, ...]
    leading: tuple[tuple[int, int], ...]
    wanted: str


def save_rows(
    kind: Kind, rows: Mapping[str, Tensor], origin: Origin, path: Path, replaces: bool
) -> None:
    """Write a file; it appears under its name only when it is complete.

    Args:
        rows: by the names of the tensors.

    Raises:
        FileExistsError: if there is a file and it is not to be replaced.
        OSError: saying what cannot be written, and what to do.
        FormatError: if rows are not finite.
    """
    metadata = {"format": kind.format, "version": kind.version, **origin.write()}
    write_tensors(_check_finite(path, rows), path, metadata, is_new=not replaces)


def load_rows(kind: Kind, path: Path) -> tuple[Rows, Origin]:
    """Read a file that `save_rows` has written.

    Raises:
        FormatError: if it is another file, or damaged; sizes are checked before anything is read.
        FileNotFoundError: if there is none.
    """
    check_header(path)
    with open_tensors(path) as file:
        own = {"format": kind.format, "version": kind.version}
        if {name: file.metadata.get(name) for name in own} != own:
            raise FormatError(f"{path.name} {kind.foreign}")
        _check_shapes(kind, file)
        return _read_rows(file), _read_origin(file)


def _check_shapes(kind: Kind, file: TensorFile) -> None:
    file.check_floats()
    shapes = file.shapes
    encoders = [key for key in KEYS if f"{key}{kind.parts[0]}" in shapes]
    own = [{shapes.get(f"{key}{part}") for part in kind.parts} for key in encoders]
    fits = len(shapes) == len(kind.parts) * len(encoders) > 0
    fits = fits and all(len(alike) == 1 for alike in own)
    fits = fits and len({shape[:-1] for shape in shapes.values()}) == 1
    fits = fits and all(_fits(kind, shape) for shape in shapes.values())
    if not fits:
        listed = ", ".join(f"{key[:40]} {shape}" for key, shape in list(shapes.items())[:6])
        raise FormatError(f"{file.path.name} holds {listed}; {kind.wanted}")


def _fits(kind: Kind, shape: tuple[int, ...]) -> bool:
    limits = [*kind.leading, (1, WIDEST)]
    return len(shape) == len(limits) and all(
        least <= n <= most for n, (least, most) in zip(shape, limits, strict=True)
    )


def check_header(path: Path) -> None:
    """Raise FormatError if a header is too long to be read."""
    if int.from_bytes(read_start(path, 8), "little") > _MAX_HEADER:
        raise FormatError(f"{path.name} holds no words: its header is too long for such a file.")


def _read_origin(file: TensorFile) -> Origin:
    """Read the origin. Raises FormatError if the metadata is damaged."""
    texts = [file.metadata.get(name, "") for name in ("tables", "provenance")]
    try:
        tables, provenance = (dict(json.loads(text)) for text in texts)
    except (ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{file.path.name}: its metadata is damaged. Learn it again.") from error
    named = {str(key): str(value) for key, value in tables.items()}
    return Origin(file.metadata.get("run", ""), named, provenance)


def _read_rows(file: TensorFile) -> Rows:
    """Return all tensors in float32. Raises FormatError if they are not finite."""
    rows = {key: file.read(key).float().clone() for key in file.shapes}
    if not all(x.isfinite().all() for x in rows.values()):
        raise FormatError(f"{file.path.name} holds values that are not numbers. Learn it again.")
    return rows


def _check_finite(path: Path, rows: Mapping[str, Tensor]) -> Rows:
    """Return the tensors as they are stored. Raises FormatError if they are not finite."""
    for key, x in rows.items():
        if not x.isfinite().all():
            raise FormatError(
                f"{path.name}: the words for {key} hold values that are not numbers. Learn again "
                "with a lower learning_rate."
            )
    return {key: x.detach().float().cpu().contiguous() for key, x in rows.items()}

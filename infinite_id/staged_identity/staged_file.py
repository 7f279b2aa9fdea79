"""The file of staged words: two small tensors for each text encoder.

A `.safetensors` with `clip_l.key` and `clip_l.value`, `clip_g...` or `clip_h...` likewise, each
`(stages, m, d)` float32: m rows of the token table that stand where the prompt has the person. The
first stage is the one without noise. Its metadata says where it is from, see `words.files`; the
format is "staged-identity-words", the version "1".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
from .stages import Words

FORMAT, VERSION = "staged-identity-words", "1"
MOST_STAGES, MOST_ROWS = 100, 32
_SIDES = ("key", "value")


@dataclass(frozen=True)
class Staged:
    """A learned person."""

    words: Words
    origin: Origin


def save(staged: Staged, path: Path, replaces: bool) -> None:
    """Write a file; it appears under its name only when it is complete.

    Raises:
        FileExistsError: if there is a file and it is not to be replaced.
        OSError: saying what cannot be written, and what to do.
        FormatError: if rows are not finite.
    """
    sides = {"key": staged.words.keys, "value": staged.words.values}
    rows = {f"{key}.{side}": x for side, own in sides.items() for key, x in own.items()}
    tensors = write_rows(path, rows)
    metadata = {"format": FORMAT, "version": VERSION, **staged.origin.write()}
    write_tensors(tensors, path, metadata, is_new=not replaces)


def load(path: Path) -> Staged:
    """Read a file that `save` has written.

    Raises:
        FormatError: if it is another file, or damaged; sizes are checked before anything is read.
        FileNotFoundError: if there is none.
    """
    check_header(path)
    with open_tensors(path) as file:
        if file.metadata.get("format") != FORMAT or file.metadata.get("version") != VERSION:
            raise FormatError(
                f"{path.name} holds no staged words that Learn Staged Identity has written, or "
                "those of another version. Choose one of its files; an ordinary embedding goes "
                "into a prompt as 'embedding:' and its name."
            )
        _check_shapes(file)
        origin, rows = read_origin(file), read_rows(file)
    return Staged(Words(*(_take(rows, side) for side in _SIDES)), origin)


def _take(rows: Rows, side: str) -> Rows:
    return {name.removesuffix(f".{side}"): x for name, x in rows.items() if name.endswith(side)}


def _check_shapes(file: TensorFile) -> None:
    file.check_floats()
    shapes = file.shapes
    encoders = {name.rpartition(".")[0] for name in shapes}
    whole = {f"{key}.{side}" for key in encoders for side in _SIDES}
    fits = encoders and encoders <= {*KEYS} and whole == {*shapes}
    counts = {shape[:2] for shape in shapes.values()}
    fits = fits and len(counts) == 1 and all(len(shape) == 3 for shape in shapes.values())
    fits = fits and all(shapes[f"{key}.key"] == shapes[f"{key}.value"] for key in encoders)
    if fits:
        (stages, rows), widest = counts.pop(), max(shape[2] for shape in shapes.values())
        fits = 0 < stages <= MOST_STAGES and 0 < rows <= MOST_ROWS and widest <= WIDEST
        fits = fits and all(shape[2] > 0 for shape in shapes.values())
    if not fits:
        listed = ", ".join(f"{key[:40]} {shape}" for key, shape in list(shapes.items())[:6])
        raise FormatError(
            f"{file.path.name} holds {listed}; staged words have 'key' and 'value' of the same "
            f"shape (stages, rows, width) for each of {', '.join(KEYS)}, with at most "
            f"{MOST_STAGES} stages and {MOST_ROWS} rows."
        )


def read_run(path: Path) -> str | None:
    """Return the digest of the run that wrote a file; None for any other file."""
    try:
        return load(path).origin.run
    except (FormatError, OSError):
        return None

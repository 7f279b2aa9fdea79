"""The file of staged words: two small tensors for each text encoder.

A `.safetensors` with `clip_l.key` and `clip_l.value`, `clip_g...` or `clip_h...` likewise, each
`(stages, m, d)` float32: m rows of the token table that stand where the prompt has the person. The
first stage is the one without noise. Its metadata says where it is from, see `words.files`; the
format is "staged-identity-words", the version "1".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..tensor_files import FormatError
from ..words.files import KEYS, Kind, Origin, Rows, load_rows, save_rows
from .stages import Words

MOST_STAGES, MOST_ROWS = 100, 32
_SIDES = (".key", ".value")
KIND = Kind(
    format="staged-identity-words",
    version="1",
    foreign="holds no staged words that Learn Staged Identity has written, or those of another "
    "version. Choose one of its files; an ordinary embedding goes into a prompt as 'embedding:' "
    "and its name.",
    parts=_SIDES,
    leading=((1, MOST_STAGES), (1, MOST_ROWS)),
    wanted="staged words have 'key' and 'value' of the same shape (stages, rows, width) for each "
    f"of {', '.join(KEYS)}, with at most {MOST_STAGES} stages and {MOST_ROWS} rows.",
)


@dataclass(frozen=True)
class Staged:
    """A learned person."""

    words: Words
    origin: Origin


def save(staged: Staged, path: Path, replaces: bool) -> None:
    """Write a file, as `words.files.save_rows` says."""
    sides = zip(_SIDES, (staged.words.keys, staged.words.values), strict=True)
    rows = {f"{key}{side}": x for side, own in sides for key, x in own.items()}
    save_rows(KIND, rows, staged.origin, path, replaces)


def load(path: Path) -> Staged:
    """Read a file that `save` has written; see `words.files.load_rows`."""
    rows, origin = load_rows(KIND, path)
    return Staged(Words(*(_take(rows, side) for side in _SIDES)), origin)


def _take(rows: Rows, side: str) -> Rows:
    return {name.removesuffix(side): x for name, x in rows.items() if name.endswith(side)}


def read_run(path: Path) -> str | None:
    """Return the digest of the run that wrote a file; None for any other file."""
    try:
        return load(path).origin.run
    except (FormatError, OSError):
        return None

"""Names of embeddings: which are allowed, which are taken, and where a file goes.

The host looks for `embedding:a/b` below each of its embeddings folders and below each folder in
them, with no ending or one of three. So a name is taken if any such file is there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from itertools import count
from pathlib import Path

_PART = re.compile(r"\w(?:[\w.-]*[\w-])?")
_ENDINGS = ("", ".safetensors", ".pt", ".bin")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
"""Names that Windows reserves for devices."""
_LONGEST = 120
_LONGEST_PART = 200
"""The most bytes in the name of a folder or file. Drives allow 255, ending and number included."""


class TakenError(ValueError):
    """A name that cannot be given to an embedding; the message says what to do."""

    __module__ = "infinite_id"  # the page shows it; as a node pack's it would be a path


class IfTaken(Enum):
    """What to do if an embedding has this name already."""

    STOP = "stop"
    NUMBER = "number"
    REPLACE = "replace"


def check_name(text: str) -> str:
    """Return an embedding's name as a prompt has it, maybe with folders: `people/anna`.

    Raises:
        TakenError: if the name leads out of the folder, or cannot be written in a prompt.
    """
    name = text.strip().replace("\\", "/").removesuffix(".safetensors")
    parts = name.split("/")
    fits = all(_fits(part) for part in parts)
    if not fits or len(name) > _LONGEST:
        raise TakenError(
            f"name is {text[:200]!r}; give letters, digits, _ and -, with / between folders, such "
            f"as people/anna, at most {_LONGEST} letters in all and {_LONGEST_PART} bytes between "
            "two /. A prompt cannot say other signs."
        )
    return name


def _fits(part: str) -> bool:
    is_short = len(part.encode()) <= _LONGEST_PART
    return bool(is_short and _PART.fullmatch(part) and not _RESERVED.fullmatch(part))


def find_named(roots: Iterable[Path], name: str) -> list[Path]:
    """Find every file that the host could take for `embedding:NAME`."""
    folders = [
        Path(folder)
        for root in roots
        for folder, _, _ in os.walk(root, followlinks=True)
    ]  # fmt: skip
    found = (folder / f"{name}{ending}" for folder in folders for ending in _ENDINGS)
    return sorted({path for path in found if path.is_file()})


def choose_path(
    roots: Sequence[Path],
    name: str,
    if_taken: IfTaken,
    run: str,
    read_run: Callable[[Path], str | None],
) -> Path:
    """Choose the path of a file in the first of the folders.

    Args:
        name: from `check_name`.
        run: the digest of what is learnt; a file of the same run is always written again.
        read_run: returns the run of a file; None if the pack has not written it.

    Raises:
        TakenError: if the name is taken, and may not be replaced.
    """
    for number in count(1):
        own = name if number == 1 else f"{name}_{number}"
        path = roots[0] / f"{own}.safetensors"
        found = find_named(roots, own)
        if not found or (found == [path] and read_run(path) == run):
            return path
        if if_taken is IfTaken.NUMBER:
            continue
        if if_taken is IfTaken.REPLACE and found == [path] and read_run(path) is not None:
            return path
        others = ", ".join(path.name for path in found[:3])
        raise TakenError(
            f"The name {name} is taken already ({others}). Give another name, or choose "
            "'number' in 'if_taken'; 'replace' replaces one that this node has written, and no "
            "other."
        )
    raise AssertionError

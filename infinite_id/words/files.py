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

from ..tensor_files import FormatError, TensorFile, read_start

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


def check_header(path: Path) -> None:
    """Raise FormatError if a header is too long to be read."""
    if int.from_bytes(read_start(path, 8), "little") > _MAX_HEADER:
        raise FormatError(f"{path.name} holds no words: its header is too long for such a file.")


def read_origin(file: TensorFile) -> Origin:
    """Read the origin. Raises FormatError if the metadata is damaged."""
    texts = [file.metadata.get(name, "") for name in ("tables", "provenance")]
    try:
        tables, provenance = (dict(json.loads(text)) for text in texts)
    except (ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{file.path.name}: its metadata is damaged. Learn it again.") from error
    named = {str(key): str(value) for key, value in tables.items()}
    return Origin(file.metadata.get("run", ""), named, provenance)


def read_rows(file: TensorFile) -> Rows:
    """Return all tensors in float32. Raises FormatError if they are not finite."""
    rows = {key: file.read(key).float().clone() for key in file.shapes}
    if not all(x.isfinite().all() for x in rows.values()):
        raise FormatError(f"{file.path.name} holds values that are not numbers. Learn it again.")
    return rows


def write_rows(path: Path, rows: Mapping[str, Tensor]) -> Rows:
    """The tensors as they are stored. Raises FormatError if they are not finite."""
    for key, x in rows.items():
        if not x.isfinite().all():
            raise FormatError(
                f"{path.name}: the words for {key} hold values that are not numbers. Learn again "
                "with a lower learning_rate."
            )
    return {key: x.detach().float().cpu().contiguous() for key, x in rows.items()}

"""Writes files that are complete or absent, even if writing is interrupted."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import UserError

_CHUNK = 2**22


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under a temporary name, and rename it once it is complete and on the disk.

    Args:
        write: writes the file at the path that it is given.

    Raises:
        UserError: if the disk is full or the folder cannot be written to. An older file of this
            name is still there then.
    """
    partial = path.with_name(f".{path.name}.{uuid4().hex}.part")  # others may write the same
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        mode = partial.stat().st_mode  # safetensors makes files that only their owner reads
        write(partial)
        partial.chmod(mode)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"{path} could not be written ({error}). What was written before is whole. Make room "
            "on the disk, or see to the folder's permissions, and give the same command again: it "
            "goes on from there."
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, with `write_whole`."""
    write_whole(path, lambda partial: _write(partial, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file with `write_whole`. `read_metadata` reads the metadata.

    The metadata is one text, so equal contents give equal bytes: safetensors does not keep the
    order of several texts.
    """
    texts = {"json": to_json(metadata)}
    contiguous = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    write_whole(path, lambda partial: save_file(contiguous, partial, texts))


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a file from `write_tensors`; no tensor is read.

    Raises:
        KeyError, ValueError, SafetensorError, OSError: if the file is of another kind or damaged.
    """
    with safe_open(path, framework="pt") as file:
        return dict(json.loads((file.metadata() or {})["json"]))


def to_json(value: Any) -> str:
    """One line of JSON, the same for the same value."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def to_json_lines(values: Iterable[Any]) -> str:
    """A line of JSON for each value."""
    return "".join(to_json(value) + "\n" for value in values)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(*values: Any) -> str:
    """SHA-256 of the values as JSON, hexadecimal."""
    return hashlib.sha256(to_json(values).encode()).hexdigest()

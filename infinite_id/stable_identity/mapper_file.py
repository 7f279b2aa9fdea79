"""A learned mapper as a file. With it, further photos of the person need no training.

A `.safetensors` of the mapper's weights and of the statistics that its rows land among, with the
metadata `format`, `version`, `config` (face_width, widths, landing), `tables` (see `words.files`)
and `face_encoder`, all but the first two as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from ..tensor_files import MAX_WIDTH, FormatError, check_shapes, open_tensors, write_tensors
from ..words.files import KEYS
from .celebs import WORDS, CelebSpace
from .mapper import Landing, Mapper

FORMAT, VERSION = "stable-identity-mapper", "1"


@dataclass(frozen=True)
class Learned:
    """A mapper, and the models that it was learnt with.

    Attributes:
        tables: digests of the token tables by text encoder.
        face_encoder: the net that the face vectors must come from.
    """

    mapper: Mapper
    tables: Mapping[str, str]
    face_encoder: str

    def digest(self) -> str:
        """SHA-256 of the weights, hexadecimal."""
        whole = sha256()
        for name, x in sorted(self.mapper.state_dict().items()):
            numbers: Any = x.detach().cpu().float().contiguous().numpy()
            whole.update(name.encode() + numbers.tobytes())
        return whole.hexdigest()


def save(learned: Learned, path: Path) -> None:
    """Write a mapper, in place of an earlier one.

    Raises:
        OSError: saying what cannot be written, and what to do.
    """
    config = learned.mapper.config
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "config": json.dumps(
            {
                "face_width": config.face_width,
                "widths": dict(config.widths),
                "landing": config.landing.value,
            }
        ),
        "tables": json.dumps(dict(learned.tables), sort_keys=True),
        "face_encoder": json.dumps(learned.face_encoder),
    }
    tensors = {
        name: x.detach().cpu().contiguous() for name, x in learned.mapper.state_dict().items()
    }
    write_tensors(tensors, path, metadata)


def load(path: Path) -> Learned:
    """Read a mapper; sizes are checked before anything is read.

    Raises:
        FormatError: if it is another file, or damaged.
        FileNotFoundError: if there is none.
    """
    with open_tensors(path) as file:
        if file.metadata.get("format") != FORMAT or file.metadata.get("version") != VERSION:
            raise FormatError(
                f"{path.name} is no mapper that Learn Identity Embedding has written, or one of "
                "another version. Choose one of its files."
            )
        try:
            config = json.loads(file.metadata["config"])
            width, widths = config["face_width"], config["widths"]
            landing = Landing(config["landing"])
            tables = {str(k): str(v) for k, v in json.loads(file.metadata["tables"]).items()}
            encoder = str(json.loads(file.metadata["face_encoder"]))
            numbers = [width, *widths.values()]
            sound = all(type(n) is int and 0 < n <= MAX_WIDTH // WORDS for n in numbers)
            if not sound or not widths or not {*widths} <= {*KEYS}:
                raise ValueError("widths out of range")
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise FormatError(f"{path.name}: its metadata is damaged. Learn it again.") from error
        with torch.device("meta"):
            spaces = {k: CelebSpace(*torch.empty(2, WORDS, d)) for k, d in widths.items()}
            mapper = Mapper(width, spaces, landing)
        expected = {name: tuple(x.shape) for name, x in mapper.state_dict().items()}
        check_shapes(path, file.shapes, expected)
        file.check_floats()
        tensors = {name: file.read(name).float().clone() for name in expected}
    if not all(x.isfinite().all() for x in tensors.values()):
        raise FormatError(f"{path.name} holds values that are not numbers. Learn it again.")
    mapper.load_state_dict(tensors, assign=True)
    return Learned(mapper, tables, encoder)

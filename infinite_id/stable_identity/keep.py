"""Stores a learned identity: the embedding, and the mapper under the same name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..words.naming import IfTaken, check_name, choose_path
from . import mapper_file, word_file
from .mapper_file import Learned
from .word_file import Words


@dataclass(frozen=True)
class Place:
    """Where a learned identity is kept.

    Attributes:
        name: as a prompt has it after `embedding:`.
        words, mapper: the paths of the two files.
    """

    name: str
    words: Path
    mapper: Path

    @property
    def prompt(self) -> str:
        return f"embedding:{self.name}"


def choose_place(
    embeddings: Sequence[Path], mappers: Path, name: str, if_taken: IfTaken, run: str
) -> Place:
    """Choose the place before learning. Raises TakenError if a name is bad or already taken.

    Args:
        embeddings: the folders that the host looks in; the first is written to.
        mappers: the folder of mappers, which are no embeddings and must not be listed as such.
        run: see `choose_path`.
    """
    path = choose_path(embeddings, check_name(name), if_taken, run, word_file.read_run)
    inside = path.relative_to(embeddings[0])
    return Place(inside.as_posix().removesuffix(".safetensors"), path, mappers / inside)


def keep(place: Place, words: Words, learned: Learned | None) -> None:
    """Write both files. Raises OSError if there is no room, saying what to do."""
    word_file.save(words, place.words, replaces=place.words.exists())
    if learned is not None:
        mapper_file.save(learned, place.mapper)

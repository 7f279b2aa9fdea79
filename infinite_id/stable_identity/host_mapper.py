"""The mapper of a run: its initial weights, whether it fits, and the words that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from comfy.sd import CLIP
from torch import Tensor

from ..faces.face import FaceError
from ..words.files import Rows
from ..words.host_faces import Nets
from ..words.host_text import digest_tables
from .celebs import CelebSpace
from .data import Portrait
from .mapper import Landing, Mapper, new_mapper, scale_face
from .mapper_file import Learned
from .word_file import Words


def make_mapper(
    spaces: Mapping[str, CelebSpace], width: int, landing: Landing, seed: int, start: Learned | None
) -> Mapper:
    """Return the mapper that a run begins with: a copy of `start`, or a new one.

    Args:
        spaces: of the text encoders.
        width: of the face vectors.
    """
    if start is None:
        return new_mapper(width, spaces, landing, seed)
    own = Mapper(width, spaces, start.mapper.config.landing)
    own.load_state_dict({name: x.clone() for name, x in start.mapper.state_dict().items()})
    return own


def check_start(start: Learned, clip: CLIP, nets: Nets) -> None:
    """Raises FaceError if a mapper was learnt with another face encoder or for another CLIP."""
    if start.face_encoder != nets.encoder:
        raise FaceError(
            f"That identity was learnt with the face encoder {start.face_encoder}, and "
            f"{nets.encoder} is connected. Connect the same one."
        )
    if dict(start.tables) != digest_tables(clip):
        raise FaceError(
            "That identity was learnt for another CLIP: its words mean nothing to this one. "
            "Connect the model that it was learnt with, or one that shares its CLIP."
        )


@torch.no_grad()
def make_words(
    learned: Learned, portraits: Sequence[Portrait], run: str, origin: Mapping[str, Any]
) -> Words:
    """Make the words of the photos, without augmentation, from the mean of their face vectors."""
    rows: Rows = learned.mapper(average(portraits)[None])
    return Words({key: x[0].clone() for key, x in rows.items()}, learned.tables, run, origin)


def average(portraits: Sequence[Portrait]) -> Tensor:
    """Return the mean direction `(w,)` of the photos' face vectors; each photo counts alike."""
    return scale_face(torch.stack([p.vectors[0] for p in portraits])).mean(dim=0)

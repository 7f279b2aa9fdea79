"""Portraits of photos: headshots with their masks and face vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..faces.face import Photo
from ..words.host_faces import Nets, cut_square, encode_vectors
from ..words.material import GivenMasks
from .data import Portrait


def look(
    nets: Nets, photos: Mapping[str, Photo], given: Sequence[GivenMasks], side: int, masked: bool
) -> tuple[list[Portrait], list[str]]:
    """Make portraits of photos, with a line for the user about each.

    Args:
        given: masks for each photo.
        side: of headshots, in pixels.
        masked: whether only face and hair are learnt.

    Raises:
        FaceError: if no face is found in a photo.
    """
    portraits, lines = [], []
    for (name, photo), own in zip(photos.items(), given, strict=True):
        seen = cut_square(nets, name, photo, own, side, masked)
        vectors = encode_vectors(nets, photo, seen.face, seen.picture)
        portraits.append(Portrait(name, seen.picture, seen.masks, vectors))
        lines.append(seen.line)
    return portraits, lines

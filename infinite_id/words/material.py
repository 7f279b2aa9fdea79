"""What the user gives to learn words from: photos, masks, and a photo that is held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..faces.face import Photo
from ..faces.photo import digest
from ..files import digest_of
from .masks import MaskError

Mask = NDArray[np.float32]
"""`(height, width)` in 0..1, of a photo."""


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """The user's masks for one photo, in its pixels; None for a mask that is not given."""

    face: Mask | None = None
    hair: Mask | None = None
    person: Mask | None = None

    @property
    def are_given(self) -> bool:
        return any(mask is not None for mask in vars(self).values())


def _digest_masks(masks: GivenMasks) -> str:
    """Return a digest that tells masks apart."""
    given = {name: x for name, x in vars(masks).items() if x is not None}
    return digest_of({name: sha256(x.tobytes()).hexdigest() for name, x in given.items()})


def read_masks(
    photos: Mapping[str, Photo],
    face: Tensor | None = None,
    hair: Tensor | None = None,
    person: Tensor | None = None,
) -> list[GivenMasks]:
    """Read MASK batches `(n, h, w)`, which hold one mask for each photo.

    Raises:
        MaskError: if there are not as many masks as photos, if their sizes differ from the
            photos', or if values are not numbers.
    """
    columns = [
        _read_batch(kind, batch, photos)
        for kind, batch in (("face_mask", face), ("hair_mask", hair), ("person_mask", person))
    ]
    return [GivenMasks(*own) for own in zip(*columns, strict=True)]


def _read_batch(kind: str, batch: Tensor | None, photos: Mapping[str, Photo]) -> list[Mask | None]:
    if batch is None:
        return [None] * len(photos)
    masks = batch.reshape(-1, *batch.shape[-2:])
    if len(masks) != len(photos):
        raise MaskError(
            f"{kind} has {len(masks)} masks for {len(photos)} photos: give one for each photo."
        )
    sizes = {(photo.shape[0], photo.shape[1]) for photo in photos.values()}
    if sizes != {(masks.shape[1], masks.shape[2])}:
        height, width = masks.shape[1:]
        raise MaskError(
            f"{kind} is {width}x{height}, and the photos are not. Give a mask of the photo's own "
            "size; Load Image gives an empty one of 64x64 for a photo without transparency."
        )
    if not torch.isfinite(masks).all():
        raise MaskError(
            f"{kind} holds values that are not numbers (NaN). Look at the node that it comes from."
        )
    return list(masks.float().clamp(0, 1).cpu().numpy())


@dataclass(frozen=True, eq=False)
class Material:
    """The photos to learn from.

    Attributes:
        photos: of one person, by their names for the user.
        masks: one for each photo.
        held_out: a photo of the person that is not learnt from; its likeness ends the run.
    """

    photos: Mapping[str, Photo]
    masks: Sequence[GivenMasks]
    held_out: Photo | None = None

    def describe(self) -> dict[str, Any]:
        """Return digests of all that is given."""
        return {
            "photos": [digest(photo) for photo in self.photos.values()],
            "masks": [_digest_masks(masks) for masks in self.masks],
            "held_out": None if self.held_out is None else digest(self.held_out),
        }

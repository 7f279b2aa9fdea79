"""Masks of face and hair, at the headshot's size and at the latents', and errors under them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

HAIR = 0.1
"""The weight of the hair in an error."""
_THRESHOLD = 0.5
_EVERYWHERE = "everywhere (no mask)"


class MaskError(ValueError):
    """A mask that marks nothing; the message says what to do."""

    __module__ = "infinite_id"  # the page shows it; as a node pack's it would be a path


@dataclass(frozen=True)
class Masks:
    """The parts of a headshot that are learnt.

    Attributes:
        face, hair: `(1, side, side)` float32 in 0..1; they do not overlap.
        face_from, hair_from: where they came from, for the user.
    """

    face: Tensor
    hair: Tensor
    face_from: str
    hair_from: str

    def describe(self) -> str:
        return f"face mask: {self.face_from}; hair mask: {self.hair_from}"


def mask_nothing(side: int) -> Masks:
    """Return masks that take the whole picture for the face: the paper's ablation without masks."""
    return Masks(torch.ones(1, side, side), torch.zeros(1, side, side), _EVERYWHERE, "none")


def shrink_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a mask `(..., h, w)` in 0..1 to the latents' size, bicubic, and cut it at 0.5."""
    planes = mask.reshape(-1, 1, *mask.shape[-2:])
    small = interpolate(planes, size, mode="bicubic", align_corners=True)
    return (small >= _THRESHOLD).float().reshape(*mask.shape[:-2], *size)


def check_mask(mask: Tensor, size: tuple[int, int], name: str) -> None:
    """Raises MaskError if nothing of the mask `(..., h, w)` is left at the latents' size."""
    if not shrink_mask(mask, size).any():
        raise MaskError(
            f"The face mask of {name} marks nothing of the headshot, so nothing would be learnt. "
            "Paint the face white in 'face_mask', or leave it unconnected."
        )


def masked_error(error: Tensor, face: Tensor, hair: Tensor) -> Tensor:
    """Return the mean square `(b,)` of errors `(b, c, h, w)`, in the face and a little in the hair.

    Args:
        face, hair: `(b, 1, h, w)` of 0 and 1. Errors are averaged over all elements, not over the
            mask: a small face counts little.
    """
    square = error.square()  # masks are 0 or 1: the square of a masked error is the masked square
    return (face * square + HAIR * hair * square).mean(dim=(1, 2, 3))

"""The frozen nets' outputs for photos: a shard of the prepared data."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ...adapters.mappers import Crop
from ...faces.alignment import align_landmarks
from ...faces.face import Photo
from ...faces.photo import to_image
from .buckets import choose_bucket, cut

Record = dict[str, Any]
Photos = Iterable[tuple[Record, Photo, Tensor, Tensor]]


class Encoders(Protocol):
    """The nets whose outputs are cached."""

    @property
    def crop_size(self) -> int:
        """The side of the picture that the CLIP image encoder takes."""
        ...

    def clip(self, crops: Tensor) -> Tensor:
        """`(b, crop_size, crop_size, 3)` RGB in 0..1 -> last hidden states `(b, l, width)`."""
        ...

    def nothing(self) -> Tensor:
        """Hidden states `(1, l, width)` of the picture that is zero in normalised pixels."""
        ...

    def latents(self, pictures: Tensor) -> Tensor:
        """`(b, h, w, 3)` RGB in 0..1 -> the autoencoder's latents `(b, c, h / 8, w / 8)`."""
        ...


@dataclass(frozen=True)
class Sizes:
    """At which sizes latents are cached.

    Attributes:
        sizes: one for each stage of training; buckets have at most the square of it in pixels.
        step: the sides of buckets are multiples of it.
    """

    sizes: tuple[int, ...] = (1024,)
    step: int = 64


def encode_shard(
    photos: Photos, encoders: Encoders, sizes: Sizes
) -> tuple[dict[str, Tensor], list[Record]]:
    """Tensors and index entries of a shard.

    Args:
        photos: the record, the decoded photo, landmarks `(5, 2)` and box `(4,)`; one at a time is
            in memory.

    Returns:
        `clip (n, l, width)` float16; and for each size and bucket `latents.<size>.<h>x<w>` and
        `mirrored.<size>.<h>x<w>`, `(m, c, h, w)` float16, of the photo and of its mirror image. An
        entry says in which bucket and row its latents are, and how the photo was cut.
    """
    clip, entries = [], []
    latents: dict[str, list[Tensor]] = {}
    for record, photo, landmarks, box in photos:
        clip.append(encoders.clip(_crop(photo, landmarks, encoders.crop_size))[0].half().cpu())
        entry = {k: v for k, v in record.items() if k not in ("kind", "reason")} | {"latents": {}}
        for size in sizes.sizes:
            bucket = choose_bucket(photo.shape[0], photo.shape[1], size, sizes.step)
            piece = cut(photo, box.numpy(), bucket)
            pair = torch.cat([to_image(piece.pixels), to_image(piece.pixels[:, ::-1])])
            own = latents.setdefault(f"{size}.{bucket[0]}x{bucket[1]}", [])
            entry["latents"][str(size)] = {
                "bucket": list(bucket),
                "row": len(own),
                "crop": [piece.top, piece.left],
            }
            # One photo at a time: its features must not depend on the others of a batch.
            own.append(torch.cat([encoders.latents(x[None]).half().cpu() for x in pair]))
        entries.append(entry)
    tensors = {"clip": torch.stack(clip)}
    for name, pairs in latents.items():
        tensors[f"latents.{name}"], tensors[f"mirrored.{name}"] = torch.stack(pairs).unbind(1)
    return tensors, entries


def _crop(photo: Photo, landmarks: Tensor, size: int) -> Tensor:
    """The picture that inference shows to the CLIP image encoder, `(1, size, size, 3)`."""
    return to_image(align_landmarks(photo, landmarks.numpy(), size, Crop.LOOSE))

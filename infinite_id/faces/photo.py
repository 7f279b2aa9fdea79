"""Pictures between ComfyUI and the face models."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .face import Photo


def read_photo(image: Tensor) -> Photo:
    """One picture of an IMAGE batch as a photo.

    Args:
        image: `(h, w, c)` float in 0..1; 1 (grey), 3 (RGB) or 4 (RGB and alpha) channels.
            Transparent pixels become white, because nobody sees their colour.

    Returns:
        `(h, w, 3)` uint8, BGR.

    Raises:
        ValueError: for another number of channels, a picture without pixels, whole numbers, or
            values that are not finite.
    """
    channels = image.shape[-1]
    if channels not in (1, 3, 4):
        raise ValueError(f"it has {channels} channels; expected 1, 3 or 4")
    if not image.numel():
        raise ValueError("it has no pixels")
    if not image.is_floating_point():
        raise ValueError(f"it holds whole numbers ({image.dtype}); expected floats from 0 to 1")
    if not torch.isfinite(image).all():
        raise ValueError("it holds values that are not numbers (NaN or infinite)")
    rgb = _lay_on_paper(image.float().clamp(0, 1)).expand(-1, -1, 3)
    pixels = (rgb * 255).round().to("cpu", torch.uint8).numpy()
    return np.ascontiguousarray(pixels[..., ::-1])


def _lay_on_paper(image: Tensor) -> Tensor:
    if image.shape[-1] != 4:
        return image
    colour, alpha = image[..., :3], image[..., 3:]
    return torch.lerp(torch.ones_like(colour), colour, alpha)


def read_photos(batches: Sequence[Tensor], kind: str = "photo") -> dict[str, Photo]:
    """All pictures of IMAGE batches as photos, named for the user: 'photo 2 of 3 (512x640)'.

    Raises:
        ValueError: as `read_photo`, naming the picture; or if a batch is empty or not a batch.
    """
    for batch in batches:
        if batch.ndim != 4:
            raise ValueError(
                f"This node needs pictures as a batch of (pictures, height, width, channels); it "
                f"got a tensor of {tuple(batch.shape)}. Connect an IMAGE output."
            )
        if not len(batch):
            raise ValueError(
                f"This node got an empty batch: no {kind} is in it. Look at the node before it, "
                "which made or chose no picture."
            )
    images = [image for batch in batches for image in batch]
    photos = {}
    for number, image in enumerate(images, start=1):
        height, width = image.shape[:2]
        name = f"{kind} {number} of {len(images)} ({width}x{height})"
        try:
            photos[name] = read_photo(image)
        except ValueError as error:
            raise ValueError(f"This node cannot use {name}: {error}.") from error
    return photos


def to_image(photo: Photo) -> Tensor:
    """A photo as an IMAGE batch of one: `(1, h, w, 3)` float32 RGB in 0..1."""
    return torch.from_numpy(photo[..., ::-1].copy()).float()[None] / 255


def digest(photo: Photo) -> str:
    """SHA-256 of the pixels, row by row in RGB order, hexadecimal."""
    return hashlib.sha256(photo[..., ::-1].tobytes()).hexdigest()

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

    Returns:
        `(h, w, 3)` uint8, BGR.

    Raises:
        ValueError: for another number of channels, or values that are not finite.
    """
    channels = image.shape[-1]
    if channels not in (1, 3, 4):
        raise ValueError(f"it has {channels} channels; expected 1, 3 or 4")
    if not torch.isfinite(image).all():
        raise ValueError("it holds values that are not numbers (NaN or infinite)")
    rgb = image.expand(-1, -1, 3) if channels == 1 else image[..., :3]
    pixels = (rgb.clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()
    return np.ascontiguousarray(pixels[..., ::-1])


def read_photos(batches: Sequence[Tensor], kind: str = "photo") -> dict[str, Photo]:
    """All pictures of IMAGE batches as photos, named for the user: 'photo 2 of 3 (512x640)'.

    Raises:
        ValueError: as `read_photo`, naming the picture.
    """
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

"""CLIP features from the host's CLIP_VISION object."""

from weakref import WeakKeyDictionary

import torch
from comfy import model_management
from comfy.clip_vision import ClipVisionModel
from torch import Tensor, nn

from ..mappers import ClipLayer


def encode_image(clip: ClipVisionModel, image: Tensor, layer: ClipLayer) -> Tensor:
    """Hidden states of pictures.

    Args:
        image: `(b, h, w, 3)` float in 0..1.

    Returns:
        `(b, tokens, clip_width)` on the CPU.
    """
    return clip.encode_image(image)[layer.value].cpu()


_NOTHING: WeakKeyDictionary[nn.Module, dict[ClipLayer, Tensor]] = WeakKeyDictionary()
"""What each encoder makes of nothing: as much work as a photo, and always the same."""


def encode_nothing(clip: ClipVisionModel, layer: ClipLayer) -> Tensor:
    """Hidden states of the picture that is zero in *normalised* pixel space, as in training.

    Encoded once for each encoder, as long as it lives.

    Returns:
        `(1, tokens, clip_width)` on the CPU.
    """
    known = _NOTHING.setdefault(clip.model, {})
    if layer not in known:
        model_management.load_model_gpu(clip.patcher)
        size = clip.image_size
        pixels = torch.zeros(1, 3, size, size, device=clip.load_device)
        last, penultimate = clip.model(pixel_values=pixels, intermediate_output=-2)[:2]
        known[layer] = (last if layer is ClipLayer.LAST else penultimate).cpu()
    return known[layer]

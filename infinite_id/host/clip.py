"""CLIP features from the host's CLIP_VISION object."""

from weakref import WeakKeyDictionary

import torch
from comfy import model_management
from comfy.clip_vision import ClipVisionModel
from torch import Tensor, nn

from ..adapters.mappers import ClipLayer


def encode_image(clip: ClipVisionModel, image: Tensor, layer: ClipLayer) -> Tensor:
    """Hidden states of pictures, or their pooled embeddings as one state.

    Args:
        image: `(b, h, w, 3)` float in 0..1.

    Returns:
        `(b, tokens, clip_width)` on the CPU.
    """
    features = clip.encode_image(image)[layer.value].cpu()
    return features[:, None] if layer is ClipLayer.POOLED else features


_NOTHING: WeakKeyDictionary[nn.Module, dict[ClipLayer, Tensor]] = WeakKeyDictionary()
"""What each encoder makes of nothing: as much work as a photo, and always the same."""


def encode_nothing(clip: ClipVisionModel, layer: ClipLayer) -> Tensor:
    """Features of no picture, as in training.

    Hidden states are those of the picture that is zero in *normalised* pixel space; the pooled
    embedding is zeros itself. Encoded once for each encoder, as long as it lives.

    Returns:
        `(1, tokens, clip_width)` on the CPU.
    """
    known = _NOTHING.setdefault(clip.model, {})
    if layer not in known:
        model_management.load_model_gpu(clip.patcher)
        size = clip.image_size
        pixels = torch.zeros(1, 3, size, size, device=clip.load_device)
        last, penultimate, pooled = clip.model(pixel_values=pixels, intermediate_output=-2)[:3]
        nothing = {
            ClipLayer.LAST: last,
            ClipLayer.PENULTIMATE: penultimate,
            ClipLayer.POOLED: torch.zeros_like(pooled)[:, None],
        }
        known[layer] = nothing[layer].cpu()
    return known[layer]

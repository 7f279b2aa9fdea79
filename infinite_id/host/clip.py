"""CLIP features from the host's CLIP_VISION object."""

from weakref import WeakKeyDictionary

import torch
from comfy import model_management
from comfy.clip_vision import ClipVisionModel
from torch import Tensor, nn

from ..adapters.mappers import ClipLayer


def encode_image(clip: ClipVisionModel, image: Tensor, layer: ClipLayer) -> Tensor:
    """Return hidden states of pictures, or their pooled embeddings as one token each.

    Args:
        image: `(b, h, w, 3)` float in 0..1.

    Returns:
        `(b, tokens, clip_width)` on the CPU.
    """
    features = clip.encode_image(image)[layer.value].cpu()
    return features[:, None] if layer is ClipLayer.POOLED else features


_NOTHING: WeakKeyDictionary[nn.Module, dict[ClipLayer, Tensor]] = WeakKeyDictionary()
"""Each encoder's features of no picture. They cost as much as a photo and never change."""


def encode_nothing(clip: ClipVisionModel, layer: ClipLayer) -> Tensor:
    """Return features of no picture, as in training.

    Hidden states are those of a picture that is zero in *normalised* pixel space. The pooled
    embedding itself is zero. The features are kept as long as the encoder lives.

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

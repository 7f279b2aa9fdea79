"""CLIP features from the host's CLIP_VISION object."""

import torch
from comfy import model_management
from comfy.clip_vision import ClipVisionModel
from torch import Tensor


def encode_image(clip: ClipVisionModel, image: Tensor) -> Tensor:
    """Last hidden states of pictures.

    Args:
        image: `(b, h, w, 3)` float in 0..1.

    Returns:
        `(b, tokens, clip_width)` on the host's intermediate device.
    """
    return clip.encode_image(image)["last_hidden_state"]


def encode_nothing(clip: ClipVisionModel) -> Tensor:
    """Last hidden states of the zero picture in *normalised* pixel space, as in training.

    Returns:
        `(1, tokens, clip_width)` on the host's intermediate device.
    """
    model_management.load_model_gpu(clip.patcher)
    size = clip.image_size
    pixels = torch.zeros(1, 3, size, size, device=clip.load_device)
    hidden = clip.model(pixel_values=pixels, intermediate_output=-2)[0]
    return hidden.to(model_management.intermediate_device())

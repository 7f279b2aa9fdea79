"""The frozen nets by ComfyUI: the checkpoint's autoencoder and the CLIP image encoder."""

from pathlib import Path

import torch
from comfy.clip_vision import ClipVisionModel
from comfy.sd import VAE
from torch import Tensor

from ...adapters.mappers import ClipLayer
from ...host.clip import encode_image, encode_nothing
from ...host.models import load_clip_vision, load_vae


class HostEncoders:
    """What `encode.Encoders` asks for; the nets are loaded and moved by ComfyUI."""

    def __init__(self, vae: VAE, clip: ClipVisionModel) -> None:
        self._vae, self._clip = vae, clip

    @classmethod
    def load(cls, model: Path, clip_vision: Path) -> "HostEncoders":
        return cls(load_vae(model), load_clip_vision(clip_vision))

    @property
    def crop_size(self) -> int:
        return int(self._clip.image_size)

    @torch.inference_mode()
    def clip(self, crops: Tensor) -> Tensor:
        return encode_image(self._clip, crops, ClipLayer.LAST)

    @torch.inference_mode()
    def nothing(self) -> Tensor:
        return encode_nothing(self._clip, ClipLayer.LAST)

    @torch.inference_mode()
    def latents(self, pictures: Tensor) -> Tensor:
        return self._vae.encode(pictures)

"""CLIP by open_clip: whole pictures and texts as vectors of one space."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from ..errors import UserError
from ..faces.face import Photo
from ..files import digest_of, file_digest
from .scores import Vectors


class Clip(Protocol):
    """A CLIP.

    Attributes:
        name: for tables, with the backbone.
        digest: SHA-256 over all that decides its vectors, hexadecimal.
        preprocessing: how a picture is prepared for the net, in words.
    """

    name: str
    digest: str
    preprocessing: str

    def see(self, photos: Sequence[Photo]) -> Vectors:
        """Photos of any sizes -> `(n, d)` float32, projected, not normalised."""
        ...

    def read(self, texts: Sequence[str]) -> Vectors:
        """Texts -> `(n, d)` float32; what is beyond 77 tokens is cut off."""
        ...


class OpenClip:
    """A model of open_clip, with weights in a .safetensors file."""

    def __init__(self, model: str, weights: Path, device: str = "auto") -> None:
        """Load a model.

        Args:
            model: open_clip's name, such as "ViT-L-14-quickgelu" for OpenAI's weights.
            device: torch's name, or "auto" for a GPU where there is one.

        Raises:
            UserError: if open_clip is missing or does not know the model, or the weights do not
                fit it.
        """
        try:
            import open_clip
        except ImportError as error:
            raise UserError(
                f"--clip needs open_clip ({error}): `pip install -r requirements/metrics.txt` in "
                "this pack's folder."
            ) from error
        config = open_clip.get_model_config(model)
        if config is None or "hf_tokenizer_name" in config["text_cfg"]:
            raise UserError(
                f"--clip: '{model}' is no model of open_clip that comes with its own tokenizer. "
                "Choose one such as ViT-B-32, ViT-B-16 or ViT-L-14-quickgelu."
            )
        if weights.suffix != ".safetensors" or not weights.is_file():
            raise UserError(f"--clip: {weights} is no .safetensors file with a CLIP's weights.")
        self._device = _choose_device(device)
        try:
            net, _, self._prepare = open_clip.create_model_and_transforms(
                model, pretrained=str(weights), device=self._device
            )
        except RuntimeError as error:
            raise UserError(f"--clip: {weights} does not fit {model}: {error}") from error
        self._net: Any = net.eval()
        self._tokenize = open_clip.get_tokenizer(model)
        self.name = f"{model} ({weights.name})"
        self.digest = digest_of(model, file_digest(weights))
        self.preprocessing = " ".join(str(self._prepare).split())

    @torch.inference_mode()
    def see(self, photos: Sequence[Photo]) -> Vectors:
        from PIL import Image

        pictures = [Image.fromarray(photo[..., ::-1].copy()) for photo in photos]
        batch = torch.stack([self._prepare(picture) for picture in pictures])
        return _to_numpy(self._net.encode_image(batch.to(self._device)))

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> Vectors:
        return _to_numpy(self._net.encode_text(self._tokenize(list(texts)).to(self._device)))


def _choose_device(device: str) -> torch.device:
    if device != "auto":
        return torch.device(device)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def _to_numpy(vectors: torch.Tensor) -> Vectors:
    found: Vectors = vectors.float().cpu().numpy()
    return found

"""CLIP by ComfyUI's own loaders: a text encoder and a CLIP vision model of one CLIP."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.sd
import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ..face import Photo
from ..photo import to_image
from ..training.files import digest_of, file_digest
from .errors import MetricsError
from .scores import Vectors

_PROJECTIONS = ("text_projection.weight", "text_projection", "visual_projection.weight")


class HostClip:
    """Text and picture features by a loaded CLIP and CLIP vision."""

    preprocessing = "ComfyUI's: bicubic to the shorter side, centre crop, CLIP's mean and deviation"

    def __init__(self, clip: Any, vision: Any, name: str = "", digest: str = "") -> None:
        """Take ComfyUI's CLIP and CLIP_VISION.

        Raises:
            MetricsError: if they are not of one CLIP: their features have different widths.
        """
        self._clip, self._vision = clip, vision
        self.name, self.digest = name, digest
        text, picture = (
            vectors.shape[1]
            for vectors in (self.read([""]), self.see([np.zeros((8, 8, 3), np.uint8)]))
        )
        if text != picture:
            raise MetricsError(
                f"The CLIP gives {text} numbers and the CLIP vision {picture}: they are not of one "
                "CLIP. For CLIP-T take both of one model, such as ViT-L/14's text encoder "
                "(clip_l) and its CLIP vision."
            )

    @classmethod
    def load(cls, text: Path, vision: Path) -> "HostClip":
        """Load two files.

        Raises:
            MetricsError: if a file is none of its kind, or lacks the projection into the common
                space, without which the cosine of both means nothing.
        """
        for option, path in (("--clip-text", text), ("--clip-vision", vision)):
            _check_projection(option, path)
        clip = comfy.sd.load_clip(
            ckpt_paths=[str(text)], clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION
        )
        loaded = comfy.clip_vision.load(str(vision))
        if loaded is None:
            raise MetricsError(f"--clip-vision: ComfyUI does not know {vision.name} as one.")
        digest = digest_of(file_digest(text), file_digest(vision))
        return cls(clip, loaded, f"{text.name} and {vision.name}", digest)

    @torch.inference_mode()
    def see(self, photos: Sequence[Photo]) -> Vectors:
        found = [self._vision.encode_image(to_image(photo))["image_embeds"] for photo in photos]
        vectors: Vectors = torch.cat(found).float().cpu().numpy()
        return vectors

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> Vectors:
        found = [self._read(text) for text in texts]
        vectors: Vectors = torch.cat(found).float().cpu().numpy()
        return vectors

    def _read(self, text: str) -> torch.Tensor:
        # In prompts, brackets are weights; here they are only brackets.
        plain = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
        tokens = self._clip.tokenize(plain)
        self._clip.load_model(tokens)
        model, device = self._clip.cond_stage_model, self._clip.patcher.load_device
        model.reset_clip_options()
        # By itself ComfyUI leaves the projection out for text encoders of SD 1.5's kind.
        model.set_clip_options({"projected_pooled": True, "execution_device": device})
        pooled: torch.Tensor = model.encode_token_weights(tokens)[1]
        return pooled


def _check_projection(option: str, path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
    except (OSError, SafetensorError) as error:
        raise MetricsError(f"{option}: {path} is no .safetensors file ({error}).") from error
    if not any(name.endswith(_PROJECTIONS) for name in names):
        raise MetricsError(
            f"{option}: {path.name} lacks the projection into the space that texts and pictures "
            "share, as text encoders cut out of checkpoints do. Take the file of the whole CLIP."
        )

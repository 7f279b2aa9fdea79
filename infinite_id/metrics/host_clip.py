"""CLIP by ComfyUI's own loaders: a text encoder and a CLIP vision model of one CLIP."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.sd
import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ..errors import UserError
from ..faces.face import Photo
from ..faces.photo import to_image
from ..files import digest_of, file_digest
from .scores import Vectors

_PROJECTIONS = ("text_projection.weight", "text_projection", "visual_projection.weight")


PREPROCESSING = "ComfyUI's: bicubic to the shorter side, centre crop, CLIP's mean and deviation"


@torch.inference_mode()
def see(vision: Any, photos: Sequence[Photo]) -> Vectors:
    """Photos -> `(n, d)` float32, projected, by a CLIP_VISION."""
    found = [vision.encode_image(to_image(photo))["image_embeds"] for photo in photos]
    vectors: Vectors = torch.cat(found).float().cpu().numpy()
    return vectors


@torch.inference_mode()
def read(clip: Any, texts: Sequence[str]) -> Vectors:
    """Texts -> `(n, d)` float32, projected, by a CLIP. Of SDXL's two encoders CLIP-G is used."""
    vectors: Vectors = torch.cat([_read(clip, text) for text in texts]).float().cpu().numpy()
    return vectors


def _read(clip: Any, text: str) -> torch.Tensor:
    # In prompts, brackets are weights; here they are only brackets.
    plain = text.replace("(", "\\(").replace(")", "\\)")
    tokens = clip.tokenize(plain)
    clip.load_model(tokens)
    model, device = clip.cond_stage_model, clip.patcher.load_device
    model.reset_clip_options()
    # By itself ComfyUI leaves the projection out for text encoders of SD 1.5's kind.
    model.set_clip_options({"projected_pooled": True, "execution_device": device})
    pooled: torch.Tensor = model.encode_token_weights(tokens)[1]
    return pooled


def check_widths(texts: Vectors, pictures: Vectors) -> None:
    """Raise UserError if features are not of one CLIP: they have different widths."""
    text, picture = texts.shape[1], pictures.shape[1]
    if text != picture:
        raise UserError(
            f"The CLIP gives {text} numbers and the CLIP vision {picture}: they are not of one "
            "CLIP. For CLIP-T take both of one model, such as ViT-L/14's text encoder (clip_l) "
            "and its CLIP vision."
        )


class HostClip:
    """ComfyUI's CLIP and CLIP_VISION as one `clips.Clip`."""

    preprocessing = PREPROCESSING

    def __init__(self, clip: Any, vision: Any, name: str = "", digest: str = "") -> None:
        """Take both. Raises UserError if they are not of one CLIP."""
        self._clip, self._vision = clip, vision
        self.name, self.digest = name, digest
        check_widths(self.read([""]), self.see([np.zeros((8, 8, 3), np.uint8)]))

    @classmethod
    def load(cls, text: Path, vision: Path) -> "HostClip":
        """Load two files.

        Raises:
            UserError: if a file is none of its kind, or lacks the projection into the common
                space, without which the cosine of both means nothing.
        """
        for option, path in (("--clip-text", text), ("--clip-vision", vision)):
            _check_projection(option, path)
        clip = comfy.sd.load_clip(
            ckpt_paths=[str(text)], clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION
        )
        loaded = comfy.clip_vision.load(str(vision))
        if loaded is None:
            raise UserError(f"--clip-vision: ComfyUI does not know {vision.name} as one.")
        digest = digest_of(file_digest(text), file_digest(vision))
        return cls(clip, loaded, f"{text.name} and {vision.name}", digest)

    def see(self, photos: Sequence[Photo]) -> Vectors:
        """Photos -> `(n, d)`."""
        return see(self._vision, photos)

    def read(self, texts: Sequence[str]) -> Vectors:
        """Texts -> `(n, d)`."""
        return read(self._clip, texts)


def _check_projection(option: str, path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{option}: {path} is no .safetensors file ({error}).") from error
    if not any(name.endswith(_PROJECTIONS) for name in names):
        raise UserError(
            f"{option}: {path.name} lacks the projection into the space that texts and pictures "
            "share, as text encoders cut out of checkpoints do. Take the file of the whole CLIP."
        )

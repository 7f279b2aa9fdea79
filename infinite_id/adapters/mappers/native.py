"""Infinite-ID's own mappers (figure 'decoupling', left)."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import normalize

from .base import ClipLayer, Crop, FaceVector, Recipe, name_clip_model


@dataclass(frozen=True)
class MapperConfig:
    """Widths of the two mappers. The defaults are SDXL with CLIP ViT-H/14 and ArcFace."""

    face_width: int = 512
    face_hidden: int = 1024
    face_tokens: int = 4
    clip_width: int = 1280
    clip_hidden: int = 1280
    token_width: int = 2048

    @property
    def recipe(self) -> Recipe:
        """The features that the mappers read."""
        return Recipe(
            name="Infinite-ID",
            face_width=self.face_width,
            face_vector=FaceVector.NORMED,
            face_model="the recogniser that it was trained with",
            clip_width=self.clip_width,
            clip_layer=ClipLayer.LAST,
            crop=Crop.LOOSE,
            clip_model=name_clip_model(self.clip_width),
        )

    def build(self) -> nn.Module:
        return IdentityMapper(self)


class FaceMapper(nn.Module):
    """One face vector -> n tokens: Linear, GELU, Linear, reshape, LayerNorm."""

    def __init__(self, config: MapperConfig) -> None:
        super().__init__()
        self.tokens = config.face_tokens
        self.proj = nn.Sequential(
            nn.Linear(config.face_width, config.face_hidden),
            nn.GELU(),
            nn.Linear(config.face_hidden, config.face_tokens * config.token_width),
        )
        self.norm = nn.LayerNorm(config.token_width)

    def read(self, face: Tensor) -> Tensor:
        """`(b, face_width)` -> `(b, face_tokens, token_width)`; the input is L2-normalised."""
        tokens = self.proj(normalize(face, dim=-1))
        return self.norm(rearrange(tokens, "b (n d) -> b n d", n=self.tokens))


class ClipMapper(nn.Module):
    """CLIP hidden states -> as many tokens: Linear, GELU, Linear, LayerNorm, per token."""

    def __init__(self, config: MapperConfig) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Linear(config.clip_width, config.clip_hidden),
            nn.GELU(),
            nn.Linear(config.clip_hidden, config.token_width),
            nn.LayerNorm(config.token_width),
        )

    def forward(self, clip: Tensor) -> Tensor:
        """`(b, l, clip_width)` -> `(b, l, token_width)`."""
        return self.proj(clip)


class IdentityMapper(nn.Module):
    """Both mappers; the identity tokens are the face tokens followed by the CLIP tokens."""

    def __init__(self, config: MapperConfig) -> None:
        super().__init__()
        self.face = FaceMapper(config)
        self.clip = ClipMapper(config)

    def forward(self, face: Tensor, clip: Tensor) -> Tensor:
        """Map features to c_id.

        Args:
            face: `(b, face_width)` ArcFace vectors, normed or raw; zeros for no identity.
            clip: `(b, l, clip_width)` last hidden states of the CLIP image encoder.

        Returns:
            `(b, face_tokens + l, token_width)`.
        """
        return torch.cat([self.face.read(face), self.clip(clip)], dim=1)

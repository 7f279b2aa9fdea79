"""The mappers of IP-Adapter in its forms for SDXL, and of InstantID.

Their unconditional features are those of their training. The face vector and the pooled image
embedding are zeros. The CLIP hidden states are those of a picture of zeros in normalised pixels.
"""

from dataclasses import dataclass, replace
from enum import Enum

from einops import rearrange
from torch import Tensor, nn

from .base import ClipLayer, Crop, FaceVector, Recipe, name_clip_model
from .native import FaceMapper, MapperConfig
from .resampler import Perceiver, Resampler


class Kind(Enum):
    """Kinds of adapters that share their tensors with another kind; the values are their names."""

    INSTANT_ID = "InstantID"
    PORTRAIT_UNNORM = "IP-Adapter FaceID Portrait unnorm"
    PLUS_FACE = "IP-Adapter Plus Face"
    PLUS = "IP-Adapter Plus"
    COMPOSITION = "IP-Adapter Plus Composition"


BUFFALO, ANTELOPE = "buffalo_l", "antelopev2"
"""InsightFace's model packs for IP-Adapter FaceID and for InstantID."""

_PORTRAIT_TOKENS = 16
"""FaceID Portrait is FaceID with more tokens: 16 a photo instead of 4."""


@dataclass(frozen=True)
class PerceiverConfig:
    """Shapes of a perceiver; heads are 64 wide."""

    width: int
    inner: int
    hidden: int
    depth: int
    features: int


@dataclass(frozen=True)
class FaceIDConfig:
    """FaceID and FaceID Portrait: one MLP from the normalised face vector to a few tokens."""

    face_width: int
    face_hidden: int
    tokens: int
    token_width: int

    @property
    def recipe(self) -> Recipe:
        portrait = " Portrait" if self.tokens == _PORTRAIT_TOKENS else ""
        return _make_face_recipe(f"IP-Adapter FaceID{portrait}", self.face_width, BUFFALO)

    def build(self) -> nn.Module:
        return FaceIDMapper(self)


@dataclass(frozen=True)
class FaceIDPlusConfig:
    """FaceID PlusV2: FaceID's tokens, plus what they read from the CLIP hidden states.

    `scale` weights the second part. It is the 'shortcut scale' of the published code.
    """

    face: FaceIDConfig
    perceiver: PerceiverConfig
    scale: float = 1.0

    @property
    def token_width(self) -> int:
        return self.face.token_width

    @property
    def recipe(self) -> Recipe:
        recipe = _make_face_recipe("IP-Adapter FaceID PlusV2", self.face.face_width, BUFFALO)
        width = self.perceiver.features
        return replace(
            recipe, clip_width=width, crop=Crop.ARCFACE, clip_model=name_clip_model(width)
        )

    def build(self) -> nn.Module:
        return FaceIDPlusMapper(self)


@dataclass(frozen=True)
class PlusConfig:
    """Plus, Plus Face and Plus Composition: learned queries that read the CLIP hidden states."""

    tokens: int
    perceiver: PerceiverConfig
    token_width: int
    kind: Kind = Kind.PLUS_FACE

    @property
    def recipe(self) -> Recipe:
        crop = Crop.LOOSE if self.kind is Kind.PLUS_FACE else Crop.WHOLE
        width = self.perceiver.features
        return _make_picture_recipe(self.kind.value, width, ClipLayer.PENULTIMATE, crop)

    def build(self) -> nn.Module:
        return PlusMapper(self)


@dataclass(frozen=True)
class PooledConfig:
    """The plain IP-Adapter: a linear layer from the pooled image embedding to a few tokens."""

    clip_width: int
    tokens: int
    token_width: int

    @property
    def recipe(self) -> Recipe:
        return _make_picture_recipe("IP-Adapter", self.clip_width, ClipLayer.POOLED, Crop.WHOLE)

    def build(self) -> nn.Module:
        return PooledMapper(self)


@dataclass(frozen=True)
class RawFaceConfig:
    """InstantID and FaceID Portrait unnorm: learned queries that read the raw face vector."""

    tokens: int
    perceiver: PerceiverConfig
    token_width: int
    kind: Kind = Kind.INSTANT_ID

    @property
    def recipe(self) -> Recipe:
        model = ANTELOPE if self.kind is Kind.INSTANT_ID else BUFFALO
        width = self.perceiver.features
        return _make_face_recipe(self.kind.value, width, model, FaceVector.RAW)

    def build(self) -> nn.Module:
        return RawFaceMapper(self)


def _make_face_recipe(
    name: str, width: int, model: str, vector: FaceVector = FaceVector.NORMED
) -> Recipe:
    """Make the recipe of an adapter that reads a face vector alone."""
    return Recipe(
        name=name,
        face_width=width,
        face_vector=vector,
        face_model=model,
        clip_width=0,
        clip_layer=ClipLayer.PENULTIMATE,
        crop=Crop.LOOSE,
        clip_model="",
    )


def _make_picture_recipe(name: str, width: int, layer: ClipLayer, crop: Crop) -> Recipe:
    """Make the recipe of an adapter that reads CLIP features alone."""
    return Recipe(
        name=name,
        face_width=0,
        face_vector=FaceVector.NORMED,
        face_model="",
        clip_width=width,
        clip_layer=layer,
        crop=crop,
        clip_model=name_clip_model(width, layer),
    )


class FaceIDMapper(FaceMapper):
    """`(b, face_width)` -> `(b, tokens, token_width)`; the CLIP features are not read."""

    def __init__(self, config: FaceIDConfig) -> None:
        super().__init__(
            MapperConfig(
                face_width=config.face_width,
                face_hidden=config.face_hidden,
                face_tokens=config.tokens,
                token_width=config.token_width,
            )
        )

    def forward(self, face: Tensor, _clip: Tensor) -> Tensor:
        return self.read(face)


class FaceIDPlusMapper(FaceIDMapper):
    """`x + scale * perceiver(x, clip)`, where x are FaceID's tokens."""

    def __init__(self, config: FaceIDPlusConfig) -> None:
        super().__init__(config.face)
        self.scale = config.scale
        self.perceiver_resampler = Perceiver(**vars(config.perceiver), out=config.token_width)

    def forward(self, face: Tensor, clip: Tensor) -> Tensor:
        tokens = self.read(face)
        return tokens + self.scale * self.perceiver_resampler.read(clip, tokens)


class PlusMapper(Resampler):
    """`(b, l, clip_width)` -> `(b, tokens, token_width)`; the face vector is not read."""

    def __init__(self, config: PlusConfig) -> None:
        super().__init__(config.tokens, **vars(config.perceiver), out=config.token_width)

    def forward(self, _face: Tensor, clip: Tensor) -> Tensor:
        return self.resample(clip)


class PooledMapper(nn.Module):
    """`(b, 1, clip_width)` -> `(b, tokens, token_width)`; the face vector is not read."""

    def __init__(self, config: PooledConfig) -> None:
        super().__init__()
        self.tokens = config.tokens
        self.proj = nn.Linear(config.clip_width, config.tokens * config.token_width)
        self.norm = nn.LayerNorm(config.token_width)

    def forward(self, _face: Tensor, clip: Tensor) -> Tensor:
        return self.norm(rearrange(self.proj(clip), "b l (n d) -> b (l n) d", n=self.tokens))


class RawFaceMapper(Resampler):
    """`(b, face_width)` -> `(b, tokens, token_width)`; the CLIP features are not read."""

    def __init__(self, config: RawFaceConfig) -> None:
        super().__init__(config.tokens, **vars(config.perceiver), out=config.token_width)

    def forward(self, face: Tensor, _clip: Tensor) -> Tensor:
        return self.resample(face[:, None])

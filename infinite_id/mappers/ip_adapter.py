"""The mappers of IP-Adapter FaceID, FaceID PlusV2, Plus and of InstantID.

Their unconditional side is that of their training: zeros for the face vector, and the CLIP hidden
states of the picture that is zero in normalised pixel space.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from .base import ClipLayer, Crop, FaceVector, Recipe, name_clip_model
from .native import FaceMapper, MapperConfig
from .resampler import Perceiver, Resampler


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
    """FaceID: one MLP from the normalised face vector to a few tokens."""

    face_width: int
    face_hidden: int
    tokens: int
    token_width: int

    @property
    def recipe(self) -> Recipe:
        return _make_recipe("IP-Adapter FaceID", self.face_width, FaceVector.NORMED, 0)

    def build(self) -> nn.Module:
        return FaceIDMapper(self)


@dataclass(frozen=True)
class FaceIDPlusConfig:
    """FaceID PlusV2: FaceID's tokens, and what they read in the CLIP hidden states.

    `scale` is the weight of the latter, the 'shortcut scale' of the published code.
    """

    face: FaceIDConfig
    perceiver: PerceiverConfig
    scale: float = 1.0

    @property
    def token_width(self) -> int:
        return self.face.token_width

    @property
    def recipe(self) -> Recipe:
        width = self.perceiver.features
        name = "IP-Adapter FaceID PlusV2"
        return _make_recipe(name, self.face.face_width, FaceVector.NORMED, width, Crop.ARCFACE)

    def build(self) -> nn.Module:
        return FaceIDPlusMapper(self)


@dataclass(frozen=True)
class PlusConfig:
    """Plus and Plus Face: learned queries that read the CLIP hidden states."""

    tokens: int
    perceiver: PerceiverConfig
    token_width: int

    @property
    def recipe(self) -> Recipe:
        width = self.perceiver.features
        return _make_recipe("IP-Adapter Plus Face", 0, FaceVector.NORMED, width)

    def build(self) -> nn.Module:
        return PlusMapper(self)


@dataclass(frozen=True)
class InstantIDConfig:
    """InstantID: learned queries that read the raw face vector."""

    tokens: int
    perceiver: PerceiverConfig
    token_width: int

    @property
    def recipe(self) -> Recipe:
        return _make_recipe("InstantID", self.perceiver.features, FaceVector.RAW, 0)

    def build(self) -> nn.Module:
        return InstantIDMapper(self)


def _make_recipe(
    name: str, face_width: int, vector: FaceVector, clip_width: int, crop: Crop = Crop.LOOSE
) -> Recipe:
    trained_with = {FaceVector.NORMED: "buffalo_l", FaceVector.RAW: "antelopev2"}
    return Recipe(
        name=name,
        face_width=face_width,
        face_vector=vector,
        face_model=trained_with[vector] if face_width else "",
        clip_width=clip_width,
        clip_layer=ClipLayer.PENULTIMATE,
        crop=crop,
        clip_model=name_clip_model(clip_width) if clip_width else "",
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
    """`x + scale * perceiver(x, clip)` with x FaceID's tokens."""

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


class InstantIDMapper(Resampler):
    """`(b, face_width)` -> `(b, tokens, token_width)`; the CLIP features are not read."""

    def __init__(self, config: InstantIDConfig) -> None:
        super().__init__(config.tokens, **vars(config.perceiver), out=config.token_width)

    def forward(self, face: Tensor, _clip: Tensor) -> Tensor:
        return self.resample(face[:, None])

"""How one identity is applied to a model: everything that the Apply node's user sets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import cos, pi

from torch import Tensor

from .attention.blocks import Block
from .attention.mixed import Mixing, Style
from .identities.identity import Identity
from .identities.projections import Projections
from .layer_weights import Place


class Curve(Enum):
    """How the weight changes between `start` and `end` of the sampling."""

    CONSTANT = "constant"
    FADE_IN = "fade in"
    FADE_OUT = "fade out"
    PEAK = "peak in the middle"


_CURVES: dict[Curve, Callable[[float], float]] = {
    Curve.CONSTANT: lambda _: 1.0,
    Curve.FADE_IN: lambda place: (1 - cos(pi * place)) / 2,
    Curve.FADE_OUT: lambda place: (1 + cos(pi * place)) / 2,
    Curve.PEAK: lambda place: (1 - cos(2 * pi * place)) / 2,
}


@dataclass(frozen=True)
class Levels:
    """Factors on the weight by the UNet's stages."""

    input: float = 1.0
    middle: float = 1.0
    output: float = 1.0


@dataclass(frozen=True, eq=False)
class Application:
    """One identity, or a sweep of them, on one model.

    Attributes:
        weight: factor on the image cross-attention; 1.0 is the paper's.
        mixing, style: see `attention.mixed`. If a model has several applications, the last active
            one decides, since they share one identity stream.
        style_in_cross_attention: adapt K', V' to the text's keys and values as well.
        start, end: the part of the sampling in which the identity acts, 0..1.
        curve: how the weight changes from start to end.
        levels: further factors, by stage.
        mask: `(batch, height, width)` in 0..1 at any resolution; None for everywhere.
        places: further factors, by single layers; 1 for those that are not there.
        negative: whom the picture is steered away from: rows of the negative prompt read these
            tokens, as many as the identity's unconditional ones; None for no identity.
    """

    identity: Identity
    weight: float = 1.0
    mixing: Mixing = Mixing.MIXED
    style: Style = Style.PHOTO
    style_in_cross_attention: bool = False
    start: float = 0.0
    end: float = 1.0
    curve: Curve = Curve.CONSTANT
    levels: Levels = Levels()
    mask: Tensor | None = None
    places: Mapping[Place, float] = field(default_factory=dict)
    negative: Identity | None = None

    @property
    def negative_projections(self) -> Projections:
        """K', V' that rows of the negative prompt read."""
        if self.negative is None:
            return self.identity.unconditional_projections
        return self.negative.projections

    @property
    def is_steady(self) -> bool:
        """Whether the weight is the same in every step."""
        return self.start <= 0 and self.end >= 1 and self.curve is Curve.CONSTANT

    def factor_at(self, progress: float) -> float:
        """The curve's factor at `progress`, a share 0..1 of the whole sampling."""
        place = (progress - self.start) / (self.end - self.start)
        return _CURVES[self.curve](min(max(place, 0.0), 1.0))

    def weight_at(self, block: Block) -> float:
        """The weight at a layer, before the curve."""
        level = float(getattr(self.levels, block.stage))
        return self.weight * level * self.places.get((block.stage, block.number), 1.0)

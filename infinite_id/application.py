"""How one identity is applied to a model: everything that the Apply node's user sets."""

from dataclasses import dataclass

from torch import Tensor

from .attention.mixed import Mixing, Style
from .identity import Identity


@dataclass(frozen=True, eq=False)
class Application:
    """One identity on one model.

    Attributes:
        weight: factor on the image cross-attention; 1.0 is the paper's.
        mixing, style: see `attention.mixed`. Of several applications on one model the last active
            one decides, since they share one identity stream.
        style_in_cross_attention: adapt K', V' to the text's keys and values as well.
        start, end: the part of the sampling in which the identity acts, 0..1.
        mask: `(batch, height, width)` in 0..1 at any resolution; None for everywhere.
    """

    identity: Identity
    weight: float = 1.0
    mixing: Mixing = Mixing.MIXED
    style: Style = Style.PHOTO
    style_in_cross_attention: bool = False
    start: float = 0.0
    end: float = 1.0
    mask: Tensor | None = None

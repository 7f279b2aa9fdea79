"""Mixed attention: the keys and values of the identity stream's self-attention.

Infinite-ID, figure 'mixed attention': `K = [K_id ; K_t]`, `V = [V_id ; V_t]`, where `_t` are the
text stream's self-attention features of the same layer and step.
"""

from collections.abc import Callable
from enum import Enum

import torch
from torch import Tensor

from .adain import adain, adain_mean


class Mixing(Enum):
    """What the identity stream's self-attention reads. The paper's method is MIXED."""

    MIXED = "mixed"
    MUTUAL = "mutual"
    OFF = "off"


class Style(Enum):
    """How the text stream's statistics reach the identity's keys and values."""

    PHOTO = "photo"
    ADAIN_MEAN = "style (AdaIN-mean)"
    ADAIN = "style (full AdaIN)"


Adapt = Callable[[Tensor, Tensor], Tensor]

_ADAPT: dict[Style, Adapt] = {
    Style.PHOTO: lambda x, _: x,
    Style.ADAIN_MEAN: adain_mean,
    Style.ADAIN: adain,
}


def adapt(style: Style, x: Tensor, y: Tensor) -> Tensor:
    """Give x those statistics of y that `style` asks for; both are `(..., tokens, channels)`.

    y is broadcast to x.
    """
    return _ADAPT[style](x, y)


def mix(mixing: Mixing, style: Style, x_id: Tensor, x_t: Tensor) -> Tensor:
    """Return the keys (or values) that the identity stream's self-attention reads.

    Args:
        x_id: the identity stream's own keys (or values), `(..., tokens, channels)`.
        x_t: those of the text stream at the same layer and step; broadcast to x_id.

    Returns:
        `(..., 2 * tokens, channels)` for MIXED, else `(..., tokens, channels)`.
    """
    if mixing is Mixing.MUTUAL:
        return x_t.expand_as(x_id)
    adapted = adapt(style, x_id, x_t)
    if mixing is Mixing.OFF:
        return adapted
    return torch.cat([adapted, x_t.expand_as(x_id)], dim=-2)


def needs_text_stream(mixing: Mixing, style: Style) -> bool:
    """Whether the identity stream reads anything at all from the text stream."""
    return mixing is not Mixing.OFF or style is not Style.PHOTO

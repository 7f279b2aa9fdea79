"""Image cross-attention: the identity's own keys and values beside the text's.

Infinite-ID, figure 'decoupling': `Attn(Q, K'_id, V'_id) + Attn(Q, K'_t, V'_t)`.
"""

from collections.abc import Callable

from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(q, k, v) -> out`, all `(rows, tokens, channels)`, heads folded into the channels."""


def add_image_attention(
    out: Tensor, q: Tensor, k: Tensor, v: Tensor, attend: Attend, weight: float, mask: Tensor | None
) -> Tensor:
    """Add `weight * mask * Attn(q, k, v)` to the text attention's output.

    Args:
        out: `(rows, pixels, channels)`, the text attention's output.
        q: `(rows, pixels, channels)`, the same queries that the text attention used.
        k, v: `(rows, tokens, channels)`, projected identity tokens.
        mask: `(rows, pixels, 1)` in 0..1, or None for everywhere; where it is 0 nothing is added.
    """
    image = attend(q, k, v) * weight
    return out + (image if mask is None else image * mask)

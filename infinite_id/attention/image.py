"""Image cross-attention: the identity's own keys and values beside the text's.

Infinite-ID, figure 'decoupling': `Attn(Q, K'_id, V'_id) + Attn(Q, K'_t, V'_t)`.
"""

from typing import Protocol

from torch import Tensor


class Attend(Protocol):
    """Attention over `(rows, tokens, channels)`, heads folded into the channels."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Add `bias` `(rows, 1, tokens)` to the scores of the keys; None adds nothing."""
        ...


def add_image_attention(
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attend: Attend,
    weight: float,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> None:
    """Add `weight * mask * Attn(q, k, v)` to the text attention's output, in place.

    Args:
        out: `(..., pixels, channels)`, the text attention's output, as many rows as q.
        q: `(rows, pixels, channels)`, the same queries that the text attention used.
        k, v: `(rows, tokens, channels)`, projected identity tokens.
        mask: `(rows, pixels, 1)` in 0..1, or None for everywhere. A 0 adds nothing.
        bias: `(rows, 1, tokens)`: the logarithm of each token's share, see `log_shares`.
    """
    image = attend(q, k, v, bias).view_as(out)
    if mask is None:
        out.add_(image, alpha=weight)
    else:
        out.addcmul_(image, mask.view(*out.shape[:-1], 1), value=weight)


def log_shares(shares: Tensor) -> Tensor:
    """The bias that makes tokens count by their shares: `softmax(s + log c) ~ c * exp(s)`.

    Args:
        shares: `(rows, tokens)`, not negative; a token of share 0 is not seen at all.

    Returns:
        `(rows, 1, tokens)`.
    """
    return shares.log()[:, None]

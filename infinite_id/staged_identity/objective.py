"""The face-wise attention loss ("Beyond Inserting", figure 'face-wise attention loss').

In each cross-attention the same queries meet the keys of two prompts: the one with the person, and
a reference with the class word in the person's place. Both give a map of where each token acts.
The loss pulls the person's map to the reference's, so that the person's words act on the face only.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

LAMBDA = 0.003
"""The weight of the attention loss, the published best of 1e-4 to 5e-2."""


def attention_error(q: Tensor, k: Tensor, k_reference: Tensor, heads: int) -> Tensor:
    """Return the mean squared difference of two attentions before the softmax, `(b,)` float32.

    The mean is over heads, places and tokens. The reference gets no gradient.

    Args:
        q: `(b, places, heads * d)`.
        k, k_reference: `(b, tokens, heads * d)`.
    """
    q, k, k_reference = (
        rearrange(x.float(), "b l (h d) -> b h l d", h=heads) for x in (q, k, k_reference)
    )
    scale = q.shape[-1] ** -0.5
    ours = q @ k.transpose(-1, -2)
    with torch.no_grad():
        theirs = q @ k_reference.transpose(-1, -2)
    return (scale * (ours - theirs)).square().mean(dim=(1, 2, 3))

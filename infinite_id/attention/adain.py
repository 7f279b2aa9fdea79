"""Adaptive instance normalisation: the text stream's statistics for the identity's features.

Statistics are taken over the token (pixel) axis, per row and channel. All functions take and
return `(..., tokens, channels)`; the two inputs may differ in their number of tokens.
"""

import torch
from torch import Tensor


def adain_mean(x: Tensor, y: Tensor) -> Tensor:
    """AdaIN-mean (Infinite-ID, figure 'mixed attention' b): `x - mean(x) + mean(y)`."""
    return x + (y.mean(dim=-2, keepdim=True) - x.mean(dim=-2, keepdim=True))


def adain(x: Tensor, y: Tensor, eps: float = 1e-5) -> Tensor:
    """Full AdaIN (Huang & Belongie 2017, eq. 8), which the paper compares against.

    The standard deviation is the biased one; `eps` is added to the variance.
    """
    x_std = (x.var(dim=-2, keepdim=True, correction=0) + eps).sqrt()
    y_std = (y.var(dim=-2, keepdim=True, correction=0) + eps).sqrt()
    centred = x - x.mean(dim=-2, keepdim=True)
    return torch.addcmul(y.mean(dim=-2, keepdim=True), centred, y_std / x_std)

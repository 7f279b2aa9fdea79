"""Adaptive instance normalisation: the text stream's statistics for the identity's features.

Statistics are taken over the token (pixel) axis, per row and channel. All functions take and
return `(rows, tokens, channels)`; the two inputs may differ in their number of tokens.
"""

from torch import Tensor


def adain_mean(x: Tensor, y: Tensor) -> Tensor:
    """AdaIN-mean (Infinite-ID, figure 'mixed attention' b): `x - mean(x) + mean(y)`."""
    return x - x.mean(dim=1, keepdim=True) + y.mean(dim=1, keepdim=True)


def adain(x: Tensor, y: Tensor, eps: float = 1e-5) -> Tensor:
    """Full AdaIN (Huang & Belongie 2017, eq. 8), which the paper compares against.

    The standard deviation is the biased one; `eps` is added to the variance.
    """
    x_std = (x.var(dim=1, keepdim=True, correction=0) + eps).sqrt()
    y_std = (y.var(dim=1, keepdim=True, correction=0) + eps).sqrt()
    return (x - x.mean(dim=1, keepdim=True)) / x_std * y_std + y.mean(dim=1, keepdim=True)

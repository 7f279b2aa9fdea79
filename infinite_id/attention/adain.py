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
    x_std, y_std = _deviation(x, eps), _deviation(y, eps)
    # Divided first: the quotient of the two deviations may be too large for float16.
    scaled = (x - x.mean(dim=-2, keepdim=True)).div_(x_std)
    return torch.addcmul(y.mean(dim=-2, keepdim=True), scaled, y_std)


def _deviation(x: Tensor, eps: float) -> Tensor:
    """Return `(..., 1, channels)`. The variance may not fit float16, so it is a float32."""
    std = x.std(dim=-2, keepdim=True, correction=0)
    return (std.float() if std.dtype.itemsize < 4 else std).square().add(eps).sqrt().to(x.dtype)

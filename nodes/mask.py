"""Masks as they come by a wire."""

import torch


def check_mask(node: str, mask: torch.Tensor) -> torch.Tensor:
    """Return a mask as `(batch, height, width)` in 0..1.

    Raises:
        ValueError: naming the node, if it is empty or no picture, or holds NaN or infinite values.
    """
    if not mask.numel():
        raise ValueError(f"{node}: the mask is empty, of shape {tuple(mask.shape)}.")
    if mask.ndim < 2:
        raise ValueError(f"{node}: the mask is of shape {tuple(mask.shape)}, without a height.")
    if not torch.isfinite(mask).all():
        raise ValueError(f"{node}: the mask holds values that are not numbers (NaN).")
    return mask.reshape(-1, *mask.shape[-2:]).clamp(0, 1)

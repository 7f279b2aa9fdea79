"""Other nodes' guidance that counts the latents of a batch, or measures the whole batch.

The batch has each latent once for every stream. So such guidance is called once for each copy of
the latents. Each time it sees just the latents that the sampler was asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..streams import Streams

FUNCTION = "sampler_cfg_function"
_COUNTING = ("comfy_extras.nodes_video_model", "comfy_extras.nodes_lumina2")
"""Modules with such guidance, which keeps nothing from one call to the next."""


def guide_copies(model_options: dict[str, Any], streams: Streams) -> dict[str, Any]:
    """Return options whose guidance is called for each copy of the latents if it counts them."""
    function: Any = model_options.get(FUNCTION)
    if streams.copies == 1 or getattr(function, "__module__", "") not in _COUNTING:
        return model_options

    def guide(given: dict[str, Any]) -> Tensor:
        return torch.cat([function(_take(given, streams, n)) for n in range(streams.copies)])

    return {**model_options, FUNCTION: guide}


def _take(given: dict[str, Any], streams: Streams, copy: int) -> dict[str, Any]:
    """Select one copy of the latents from the arguments of guidance."""
    rows = slice(copy * streams.latents, (copy + 1) * streams.latents)
    return {
        name: x[rows] if isinstance(x, Tensor) and x.ndim and len(x) == streams.rows else x
        for name, x in given.items()
    }

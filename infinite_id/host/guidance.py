"""Guidance of other nodes that counts the latents of a batch, or measures all of it at once.

With each latent in the batch once for every stream, such guidance is called for one copy of the
latents after the other, so that it sees the latents that the sampler was asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..streams import Streams

FUNCTION = "sampler_cfg_function"
_COUNTING = ("comfy_extras.nodes_video_model", "comfy_extras.nodes_lumina2")
"""Modules whose guidance does so, and keeps nothing from one call to the next."""


def guide_copies(model_options: dict[str, Any], streams: Streams) -> dict[str, Any]:
    """Options whose guidance, where it counts latents, is called for each copy of them."""
    function: Any = model_options.get(FUNCTION)
    if streams.copies == 1 or getattr(function, "__module__", "") not in _COUNTING:
        return model_options

    def guide(given: dict[str, Any]) -> Tensor:
        return torch.cat([function(_take(given, streams, n)) for n in range(streams.copies)])

    return {**model_options, FUNCTION: guide}


def _take(given: dict[str, Any], streams: Streams, copy: int) -> dict[str, Any]:
    """What guidance is given, of one copy of the latents."""
    rows = slice(copy * streams.latents, (copy + 1) * streams.latents)
    return {
        name: x[rows] if isinstance(x, Tensor) and x.ndim and len(x) == streams.rows else x
        for name, x in given.items()
    }

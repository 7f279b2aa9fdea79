"""The attention that a layer's hooks call: the host's own, with other nodes' overrides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ..attention.image import Attend

Replacement = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]
"""A layer's `attn1` or `attn2` replacement, as the host calls it with q, k, v and its options."""


def make_attend(options: dict[str, Any]) -> Attend:
    """The attention that the host would use in this layer, overrides included.

    Raises:
        ValueError: if another node replaced the attention blocks. They may cut the batch, so it is
            unknown what the rows are.
    """
    if "attn_precision" not in options:
        raise ValueError(
            "Infinite-ID: another node has put attention blocks of its own into this model, such "
            "as a Reference ControlNet of ComfyUI-Advanced-ControlNet, and identities cannot be "
            "drawn through them. Take that node out, or Apply Infinite-ID."
        )

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        return optimized_attention(
            q,
            k,
            v,
            options["n_heads"],
            mask=bias,
            attn_precision=options["attn_precision"],
            transformer_options=options,
        )

    return attend

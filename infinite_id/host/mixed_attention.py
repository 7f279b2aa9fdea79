"""Mixed attention: what the identity stream's self-attention reads, as the host's hooks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..attention.blocks import Block
from ..attention.mixed import Mixing, mix
from .attend import Replacement, make_attend
from .forward import Forward


def make_attn1(forward: Forward, block: Block, foreign: Replacement | None) -> Replacement:
    """The host's `attn1` replacement for one block.

    If there is a foreign replacement, only the style is applied. It may expect q, k and v of equal
    length, and twice as many keys would break it.
    """
    layout, style = forward.layout, forward.acting.style
    mixing = forward.acting.mixing if foreign is None else Mixing.OFF

    def attn1(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        _check_rows(forward, q, options)
        # HyperTile cuts the queries alone; the host's attention then cuts the keys as they lie.
        k, v = (x.reshape(q.shape[0], -1, x.shape[-1]) for x in (k, v))
        k_id, k_t = layout.part(k)
        v_id, v_t = layout.part(v)
        k_read, v_read = forward.read_text(block, k_t, v_t, k_id)
        k_mixed = mix(mixing, style, k_id, k_read).flatten(0, 2)
        v_mixed = mix(mixing, style, v_id, v_read).flatten(0, 2)
        k_t, v_t = k_t.flatten(0, 2), v_t.flatten(0, 2)
        if foreign is not None:
            k, v = layout.join(k_mixed, k_t), layout.join(v_mixed, v_t)
            return part_rows(forward, foreign)(q, k, v, options)
        q_id, q_t = layout.split(q)
        attend = make_attend(options)
        identity = attend(q_id, k_mixed, v_mixed)
        if not layout.streams.has_text:
            return identity
        return layout.join(identity, attend(q_t, k_t, v_t))

    return attn1


def part_rows(forward: Forward, foreign: Replacement) -> Replacement:
    """Another node's attention, called for the host's rows and for added text rows apart.

    The node may keep its last result. The added rows come first, so that it keeps the result for
    the host's rows.
    """
    layout = forward.layout
    if not forward.adds_text:
        return foreign

    def attn1(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        (q_id, q_t), (k_id, k_t), (v_id, v_t) = (layout.split(x) for x in (q, k, v))
        text = foreign(q_t, k_t, v_t, options)
        return layout.join(foreign(q_id, k_id, v_id, options), text)

    return attn1


def _check_rows(forward: Forward, q: Tensor, options: dict[str, Any]) -> None:
    """Raise ValueError if q's rows are neither the forward's rows nor tiles of them."""
    height, width = options["activations_shape"][-2:]
    is_cut = q.shape[0] * q.shape[1] == forward.rows * height * width
    if q.shape[0] != forward.rows and not is_cut:
        raise ValueError(
            f"Infinite-ID: another node has made {q.shape[0]} rows of the self-attention's "
            f"{forward.rows}, and whose they are is unknown. Take that node out, or set "
            "mixed_attention in Apply Infinite-ID to off and style to photo."
        )

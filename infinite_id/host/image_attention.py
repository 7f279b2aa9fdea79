"""Image cross-attention beside the text's, as the host's hooks."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_management import device_supports_non_blocking
from einops import repeat
from torch import Tensor

from ..attention.blocks import Block
from ..attention.image import add_image_attention
from ..attention.mask import cut_mask, mask_tokens
from ..attention.mixed import adapt
from .attend import Replacement, make_attend
from .forward import Forward
from .people import Person
from .stale import refuse
from .trace import pick_identity


def make_attn2(forward: Forward, block: Block, foreign: Replacement | None) -> Replacement:
    """The host's `attn2` replacement for one block."""

    def attn2(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        forward.called.add(block)
        attend = make_attend(options)
        out = attend(q, k, v) if foreign is None else foreign(q, k, v, options)
        if len(out) != len(q):
            raise refuse(len(out), len(q))
        if foreign is not None or "optimized_attention_override" in options:
            out = out.clone()  # others may keep what they handed out
        picked = pick_identity(forward, q, options)
        identity, q_id = picked.take(out), picked.select(q)
        for person, weight in forward.acting.weigh(block):
            k_id, v_id = _select_key_values(forward, person, block, q)
            k_id, v_id = picked.deal(k_id), picked.deal(v_id)
            if person.application.style_in_cross_attention:
                k_id = adapt(forward.acting.style, k_id, picked.select(k))
                v_id = adapt(forward.acting.style, v_id, picked.select(v))
            mask = _mask(forward, person, options["activations_shape"], like=q)
            bias = _bias(forward, person, like=q)
            mask, bias = (None if x is None else picked.deal(x) for x in (mask, bias))
            add_image_attention(identity, q_id, k_id, v_id, attend, weight, mask, bias)
        return picked.put(out, identity)

    return attn2


def _select_key_values(
    forward: Forward, person: Person, block: Block, like: Tensor
) -> tuple[Tensor, Tensor]:
    """K', V' for the identity rows: the identity in positive chunks, no identity in the others.

    For a stack of n photos the unconditional tokens are repeated n times. Repetition does not
    change the attention's output.
    """
    streams, positive = forward.streams, [cond.positive for cond in forward.conds]

    def select(identity: Tensor, unconditional: Tensor) -> Tensor:
        identity = identity.to(like)
        chunks = []
        if any(positive):
            rows = streams.identity // len(identity)
            chunks.append(repeat(identity, "p l d -> (p r) l d", r=rows))
        if not all(positive):
            quickly = device_supports_non_blocking(like.device)
            unconditional = unconditional.to(like, non_blocking=quickly)
            photos = identity.shape[1] // unconditional.shape[1]
            chunks.append(repeat(unconditional, "1 l d -> r (n l) d", r=streams.identity, n=photos))
        return torch.cat([chunks[0 if is_positive else -1] for is_positive in positive])

    (k, v), (k_none, v_none) = person.key_values[block], person.unconditional[block]
    return select(k, k_none), select(v, v_none)


def _bias(forward: Forward, person: Person, like: Tensor) -> Tensor | None:
    """The tokens' shares for the identity rows, `(chunks * identity, 1, tokens)`."""
    if person.bias is None:
        return None
    positive = [cond.positive for cond in forward.conds]
    key = ("bias", forward.streams.identity, *positive, like.device, like.dtype)
    if key not in person.cache:
        rows = forward.streams.identity // len(person.bias)
        identity = repeat(person.bias, "p 1 l -> (p r) 1 l", r=rows)
        alike = torch.zeros_like(identity)
        chunks = [identity if is_positive else alike for is_positive in positive]
        person.cache[key] = torch.cat(chunks).to(like)
    return person.cache[key]


def _mask(forward: Forward, person: Person, shape: list[int], like: Tensor) -> Tensor | None:
    """A person's mask for the identity rows, `(chunks * identity, tokens, 1)`."""
    if person.mask is None:
        return None
    grid, people = (shape[-2], shape[-1]), forward.streams.people
    latents, areas = _need_latents(forward, person.mask), forward.areas
    window, latent = forward.evaluation.window, forward.evaluation.latent
    key = ("mask", latents, grid, latent, window, *areas, like.device, like.dtype)
    if key not in person.cache:
        mask = person.mask if len(person.mask) == 1 else person.mask[list(latents)]
        if window is not None and window.dimension > 1:
            mask = cut_mask(mask, latent, window.dimension - 1, window.places)
            latent = (forward.x.shape[-2], forward.x.shape[-1])
        masks = [mask_tokens(mask, latent, area, grid) for area in areas]
        chunks = [one.expand(len(latents), -1, -1).repeat(people, 1, 1) for one in masks]
        person.cache[key] = torch.cat(chunks).to(like)
    return person.cache[key]


def _need_latents(forward: Forward, mask: Tensor) -> tuple[int, ...]:
    """The places of a chunk's latents among the run's; zeros if all latents share one mask."""
    if forward.latents is not None:
        return forward.latents
    if len(mask) == 1:
        return (0,) * forward.streams.latents
    raise ValueError(
        "Apply Infinite-ID: each latent has a mask of its own, but another node runs the model on "
        "a part of the batch and does not say which. Give one mask for all, or take that node out."
    )

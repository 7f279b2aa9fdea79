"""Where an adapter's training starts, on the tiny model, by the code that inference uses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from pack.infinite_id.adapters.mappers import MapperConfig
from pack.infinite_id.attention.blocks import context_width, list_transformers
from pack.infinite_id.host.training import make_predict
from pack.infinite_id.training.initialise import new_adapter

if TYPE_CHECKING:
    from pack.infinite_id.adapters.adapter import Adapter
    from pack.tests.host.world import World

MAPPER = MapperConfig(face_width=16, face_hidden=32, clip_width=24, clip_hidden=24)


def make(world: World) -> Adapter:
    torch.manual_seed(0)
    return new_adapter(world.unet, replace(MAPPER, token_width=context_width(world.unet)))


def zero_y(world: World) -> torch.Tensor:
    return torch.zeros(1, world.unet.label_emb[0][0].in_features)


def test_new_adapter_starts_from_the_text_projections(tiny: World) -> None:
    """With text tokens as identity tokens, image attention is then the text attention."""
    adapter = make(tiny)
    tokens = torch.randn(1, 7, context_width(tiny.unet))
    for block, transformer in list_transformers(tiny.unet):
        k, v = adapter.project(tokens)[block]
        torch.testing.assert_close(k, transformer.attn2.to_k(tokens))
        torch.testing.assert_close(v, transformer.attn2.to_v(tokens))


def test_text_attention_is_inactive(tiny: World) -> None:
    """Image attention that equals the text's gives the UNet's own output, and no more."""
    with torch.no_grad():
        adapter, x, t = make(tiny), torch.randn(4, 4, 16, 16), torch.tensor([900, 500, 100, 3])
        tokens = torch.randn(4, 7, context_width(tiny.unet))
        y = zero_y(tiny)
        own = tiny.unet(x, t, context=tokens, y=y.expand(4, -1), transformer_options={})
        alone = make_predict(tiny.model.model, y)(x, t, adapter.project(tokens))
        both = make_predict(tiny.model.model, y, tokens)(x, t, adapter.project(tokens))
    torch.testing.assert_close(alone, own)
    assert (both - own).norm() > 1e-4 * own.norm()

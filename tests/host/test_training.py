"""Identity-enhanced training on the tiny model, by the code that inference uses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pack.infinite_id.adapters.mappers import MapperConfig
from pack.infinite_id.attention.blocks import context_width, list_transformers
from pack.infinite_id.host.training import make_predict
from pack.infinite_id.training.initialise import new_adapter
from pack.infinite_id.training.step import Pairs, drop_identity, identity_loss

if TYPE_CHECKING:
    from pack.infinite_id.adapters.adapter import Adapter
    from pack.tests.host.world import World

MAPPER = MapperConfig(face_width=16, face_hidden=32, clip_width=24, clip_hidden=24)
ALPHAS = torch.linspace(0.999, 0.01, 1000)


def make(world: World) -> Adapter:
    torch.manual_seed(0)
    return new_adapter(world.unet, replace(MAPPER, token_width=context_width(world.unet)))


def draw_pairs(rows: int = 4) -> Pairs:
    generator = torch.Generator().manual_seed(3)
    return Pairs(
        latents=torch.randn(rows, 4, 16, 16, generator=generator),
        face=torch.randn(rows, 16, generator=generator),
        clip=torch.randn(rows, 5, 24, generator=generator),
    )


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
        adapter, x, t = make(tiny), draw_pairs().latents, torch.tensor([900, 500, 100, 3])
        tokens = torch.randn(4, 7, context_width(tiny.unet))
        y = zero_y(tiny)
        own = tiny.unet(x, t, context=tokens, y=y.expand(4, -1), transformer_options={})
        alone = make_predict(tiny.model.model, y)(x, t, adapter.project(tokens))
        both = make_predict(tiny.model.model, y, tokens)(x, t, adapter.project(tokens))
    torch.testing.assert_close(alone, own)
    assert (both - own).norm() > 1e-4 * own.norm()


def test_dropped_identities_are_the_unconditional_ones() -> None:
    pairs, nothing = draw_pairs(400), torch.full((1, 5, 24), 7.0)
    dropped = drop_identity(pairs, nothing, 0.1, torch.Generator().manual_seed(0))
    gone = (dropped.clip == nothing).all(dim=(1, 2))
    assert 20 < int(gone.sum()) < 60
    assert torch.equal((dropped.face == 0).all(dim=1), gone)
    assert torch.equal(dropped.face[~gone], pairs.face[~gone])


def test_training_lowers_the_loss_and_touches_the_adapter_alone(tiny: World) -> None:
    adapter, pairs = make(tiny), draw_pairs()
    before = {name: p.clone() for name, p in tiny.unet.state_dict().items()}
    predict = make_predict(tiny.model.model, zero_y(tiny))
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=1e-2, weight_decay=0.01)
    losses = []
    for _ in range(30):
        loss = identity_loss(adapter, predict, pairs, ALPHAS, torch.Generator().manual_seed(1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.97 * losses[0], losses
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.parameters())
    assert all(torch.equal(before[name], p) for name, p in tiny.unet.state_dict().items())


def test_loss_against_the_formula(tiny: World) -> None:
    """E || eps - eps_theta ||^2 with z_t = sqrt(a) z + sqrt(1 - a) eps, written out."""
    adapter, pairs = make(tiny), draw_pairs()
    seen: dict[str, Any] = {}

    def predict(noised: torch.Tensor, t: torch.Tensor, _: object) -> torch.Tensor:
        seen.update(noised=noised, t=t)
        return torch.zeros_like(noised)

    loss = identity_loss(adapter, predict, pairs, ALPHAS, torch.Generator().manual_seed(1))
    a = ALPHAS[seen["t"]].reshape(-1, 1, 1, 1)
    noise = (seen["noised"] - a.sqrt() * pairs.latents) / (1 - a).sqrt()
    assert loss.item() == pytest.approx((noise**2).mean().item(), rel=1e-4)

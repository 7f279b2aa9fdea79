"""A negative identity and weights of single layers, through the node, against references."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.adapters.adapter import Adapter
from pack.infinite_id.identities.identity import Identity
from pack.infinite_id.identities.mixing import interpolate, stack
from pack.infinite_id.layer_weights import name_places
from pack.nodes.apply import ApplyInfiniteID
from pack.tests.host import reference
from pack.tests.host.reference import Setting
from pack.tests.host.test_reference import CFG, SIZE, TOLERANCE, make_net, make_prompts
from pack.tests.host.world import SEED, World, difference, empty, sigmas
from torch import Tensor


def apply(
    model: ModelPatcher, identity: Identity, mixed_attention: str = "mixed", **more: Any
) -> ModelPatcher:
    patched: ModelPatcher = ApplyInfiniteID.execute(
        model, identity, 1.0, "photo", mixed_attention, 0.0, 1.0, False, **more
    ).result[0]
    return patched


def draw(world: World, model: ModelPatcher, cfg: float = CFG) -> Tensor:
    return world.sample(model, latent=empty(1, *SIZE), cfg=cfg)


@pytest.mark.parametrize("photos", [1, 2])
@pytest.mark.parametrize("mixing", ["mixed", "off"])
def test_rows_of_the_negative_prompt_read_the_negative_photo(
    precise: World, mixing: str, photos: int
) -> None:
    """A stack of two photos reads it twice, which changes nothing."""
    identity = precise.identity if photos == 1 else stack([precise.identity, precise.other])
    drawn = draw(
        precise, apply(precise.model, identity, mixed_attention=mixing, negative=precise.other)
    )
    net = make_net(precise, Setting(mixing=mixing))
    positive, negative = make_prompts(precise)
    positive = replace(positive, identity=identity.tokens.double())
    negative = replace(negative, identity=precise.other.tokens.double())
    noise = torch.randn(1, 4, *SIZE, generator=torch.Generator().manual_seed(SEED)).double()
    levels = sigmas(precise.model).double()
    with torch.inference_mode():
        expected, _ = reference.sample(net, noise, levels, (positive, negative), CFG)
    assert difference(drawn, expected) < TOLERANCE
    assert difference(drawn, draw(precise, apply(precise.model, identity, mixing))) > 0.01


def test_without_guidance_a_negative_photo_does_nothing(tiny: World) -> None:
    plain, steered = (
        draw(tiny, apply(tiny.model, tiny.identity, negative=negative), cfg=1.0)
        for negative in (None, tiny.other)
    )
    assert torch.equal(plain, steered)


def test_a_negative_photo_that_does_not_fit_is_refused(tiny: World) -> None:
    stacked = stack([tiny.identity, tiny.other])
    sweep = interpolate([tiny.identity, tiny.other], [0, 1])
    stranger = replace(tiny.other, adapter=Adapter(tiny.other.adapter.config))
    broken = replace(tiny.other, tokens=tiny.other.tokens * torch.nan)
    for negative, message in (
        (stacked, "'negative' is a stack of photos or a sweep.*'average'"),
        (sweep, "'negative' is a stack of photos or a sweep"),
        (stranger, "'negative' was encoded with the adapter"),
        (broken, "not numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            apply(tiny.model, tiny.identity, negative=negative)


def scale_values(identity: Identity, factors: dict[tuple[str, int], float]) -> Identity:
    """The identity by an adapter whose V' is scaled in some layers: attention is linear in it."""
    scaled = Adapter(identity.adapter.config).requires_grad_(False)
    scaled.load_state_dict(identity.adapter.state_dict())
    for block in scaled.config.layers:
        projection: Any = scaled.layers[str(block)]
        projection.to_v.weight.mul_(factors.get((block.stage, block.number), 1.0))
    return replace(identity, adapter=scaled)


def test_weights_of_single_layers(precise: World) -> None:
    places = name_places(precise.identity.adapter.config.layers)
    named = {"down2": 0.25, "middle": 0.0, "up1": 1.5}
    factors = {places[name]: factor for name, factor in named.items()}
    expected = draw(precise, apply(precise.model, scale_values(precise.identity, factors)))
    in_order = ", ".join(str(named.get(name, 1)) for name in places)
    for text in ("down2: .25, middle: 0, up1: 1.5", in_order):
        drawn = draw(precise, apply(precise.model, precise.identity, layer_weights=text))
        assert difference(drawn, expected) < TOLERANCE
    assert difference(draw(precise, apply(precise.model, precise.identity)), expected) > 0.01


def test_layers_that_the_model_lacks_are_refused(tiny: World) -> None:
    with pytest.raises(ValueError, match=r"layer_weights: this model has no layer 'down9'"):
        apply(tiny.model, tiny.identity, layer_weights="down9: 1")

"""What is known not to work with the pack, and what happens then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_extras.nodes_tomesd import TomePatchModel
from pack.tests.host.world import empty

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from pack.tests.host.world import World


def merge_tokens(model: ModelPatcher) -> ModelPatcher:
    return TomePatchModel.execute(model, 0.5).result[0]


def test_token_merging_does_nothing(tiny: World) -> None:
    """Without an identity, too: it acts at the latent's resolution, where SDXL attends nowhere."""
    latent = empty(1, 32, 32)
    for model in (tiny.model, tiny.patch()):
        plain = tiny.sample(model, latent=latent, steps=1)
        assert torch.equal(tiny.sample(merge_tokens(model), latent=latent, steps=1), plain)

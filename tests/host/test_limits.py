"""What is known not to work with the pack, and what happens then."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy_extras.nodes_tomesd import TomePatchModel
from pack.infinite_id.attention.blocks import list_transformers
from pack.tests.host.world import empty
from torch import Tensor

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


def attend_otherwise(
    self: BasicTransformerBlock,
    x: Tensor,
    context: Tensor,
    transformer_options: dict[str, Any],
) -> Tensor:
    """A block as a Reference ControlNet calls the replacements in it: with few options."""
    block = (*transformer_options["block"], transformer_options["block_index"])
    replace = transformer_options["patches_replace"]["attn2"][block]
    attend, options = self.attn2, {"n_heads": self.n_heads, "dim_head": self.d_head}
    n = self.norm2(x)
    out = replace(attend.to_q(n), attend.to_k(context), attend.to_v(context), options)
    return x + attend.to_out(out)


def test_attention_blocks_of_another_node(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for _, block in list_transformers(tiny.unet):
        monkeypatch.setattr(block, "forward", MethodType(attend_otherwise, block))
    with pytest.raises(ValueError, match=r"attention blocks of its own .* Reference ControlNet"):
        tiny.sample(tiny.patch())

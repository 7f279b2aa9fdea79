"""Turns many prompts into conditioning at once, with gradients."""

from __future__ import annotations

import comfy.clip_model
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import Timestep
from torch import Tensor

from ..shapes import SIZE_EMBEDDING
from ..text import MiniatureClipModel, MiniatureTokenizer
from . import workers

Conditioning = tuple[Tensor, Tensor]


def make_trainable() -> None:
    """Replace the host's CLIP layers, which add in place, by equivalent ones for autograd."""

    def forward(self, x, mask=None, optimized_attention=None):  # type: ignore[no-untyped-def]
        x = x + self.self_attn(self.layer_norm1(x), mask, optimized_attention)
        return x + self.mlp(self.layer_norm2(x))

    comfy.clip_model.CLIPLayer.forward = forward  # type: ignore[method-assign]


class Prompts:
    """Prompts as token numbers; the empty prompt is number -1, the last."""

    def __init__(self, captions: list[str]) -> None:
        tokenizer = MiniatureTokenizer()
        pairs = [tokenizer.tokenize_with_weights(text) for text in [*captions, ""]]
        self.l, self.g = (
            torch.tensor([[token for token, _ in pair[key][0]] for pair in pairs]) for key in "lg"
        )

    def encode(self, net: MiniatureClipModel, which: Tensor, side: int) -> Conditioning:
        """Return context `(b, 40, 128)` and the vector `(b, 1632)` of pooled text and sizes."""
        context_l, _ = net.clip_l(self.l[which].tolist())
        context_g, pooled = net.clip_g(self.g[which].tolist())
        vector = torch.cat([pooled, embed_sizes(side).expand(len(which), -1)], dim=1)
        return torch.cat([context_l, context_g], dim=-1), vector


def embed_sizes(side: int) -> Tensor:
    """Embed the sizes of a whole picture as the host does: a part of the vector, `(1536,)`."""
    sizes = torch.tensor([side, side, 0, 0, side, side], device=workers.device())
    return Timestep(SIZE_EMBEDDING)(sizes.float()).flatten()

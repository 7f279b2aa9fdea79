"""Perceiver resamplers: learned queries, or face tokens, attend to a row of features.

The architecture is that of IP-Adapter Plus (Ye et al. 2023) after Flamingo's (Alayrac et al. 2022,
figure 5); names of parameters are those of the published files.
"""

from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

HEAD_WIDTH = 64


class PerceiverAttention(nn.Module):
    """Queries from the latents; keys and values from the features and the latents."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.heads = inner // HEAD_WIDTH
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """`(b, l, width)`, `(b, n, width)` -> `(b, n, width)`."""
        latents = self.norm2(latents)
        k, v = self.to_kv(torch.cat([self.norm1(features), latents], dim=1)).chunk(2, dim=-1)
        q, k, v = (
            rearrange(x, "b l (h d) -> b h l d", h=self.heads) for x in (self.to_q(latents), k, v)
        )
        return self.to_out(rearrange(scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)"))


def make_feed_forward(width: int, inner: int) -> nn.Sequential:
    """LayerNorm, Linear, GELU, Linear; no biases."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, inner, bias=False),
        nn.GELU(),
        nn.Linear(inner, width, bias=False),
    )


class Perceiver(nn.Module):
    """Layers of attention and feed-forward on latents that read a row of features.

    Args:
        width: of the latents; inner: of attention; hidden: of the feed-forward layers.
        features: width of the features; out: width of the result.
    """

    def __init__(
        self, width: int, inner: int, hidden: int, depth: int, features: int, out: int
    ) -> None:
        super().__init__()
        self.proj_in = nn.Linear(features, width)
        self.proj_out = nn.Linear(width, out)
        self.norm_out = nn.LayerNorm(out)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(width, inner), make_feed_forward(width, hidden)])
            for _ in range(depth)
        )

    def read(self, features: Tensor, latents: Tensor) -> Tensor:
        """`(b, l, features)`, `(b, n, width)` -> `(b, n, out)`."""
        features = self.proj_in(features)
        for layer in self.layers:
            attention, feed_forward = cast(nn.ModuleList, layer)
            latents = latents + attention(features, latents)
            latents = latents + feed_forward(latents)
        return self.norm_out(self.proj_out(latents))


class Resampler(Perceiver):
    """Learned queries that read CLIP hidden states, or one face vector (InstantID)."""

    def __init__(
        self, tokens: int, width: int, inner: int, hidden: int, depth: int, features: int, out: int
    ) -> None:
        super().__init__(width, inner, hidden, depth, features, out)
        self.latents = nn.Parameter(torch.empty(1, tokens, width))

    def resample(self, features: Tensor) -> Tensor:
        """`(b, l, features)` -> `(b, tokens, out)`."""
        return self.read(features, self.latents.expand(len(features), -1, -1))

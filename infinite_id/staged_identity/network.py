"""The token network: it turns one row of the token table into a pair of rows for each stage.

"Beyond Inserting", figure 'stage-based': a trainable self-attention block makes the pairs from the
embedding of the person. Its layers are not published; these are two blocks of self-attention and a
gated feed-forward. The last layer begins at zero, so that all rows are the class word's at first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from ..words.files import Rows
from .stages import Words

HEADS, HEAD_WIDTH = 8, 64
_BLOCKS = 2


class SelfAttention(nn.Module):
    """LayerNorm and self-attention, with a residual connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_WIDTH
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * inner, bias=False)
        self.to_out = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = rearrange(self.to_qkv(self.norm(x)), "l (s h d) -> s h l d", s=3, h=HEADS)
        out = functional.scaled_dot_product_attention(*qkv.unbind())
        return x + self.to_out(rearrange(out, "h l d -> l (h d)"))


class Head(nn.Module):
    """Makes the pairs of rows of one text encoder."""

    def __init__(self, row: Tensor, stages: int, sides: int) -> None:
        """
        Args:
            row: the class word's, `(d,)`.
            sides: 2, or 1 if keys and values have the same words.
        """
        super().__init__()
        width = len(row)
        self._shape = {"n": stages, "s": sides, "d": width}
        self.word = nn.Parameter(row.detach().clone()[None])
        self.blocks = nn.Sequential(*(SelfAttention(width) for _ in range(_BLOCKS)))
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, stages * sides * width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self) -> Tensor:
        """`(sides, stages, 1, d)`."""
        value, gate = self.gate(self.norm(self.blocks(self.word))).chunk(2, dim=-1)
        change = rearrange(
            self.out(value * functional.gelu(gate)), "m (n s d) -> s n m d", **self._shape
        )
        return self.word + change


class TokenNetwork(nn.Module):
    """A head for each text encoder."""

    def __init__(self, rows: Mapping[str, Tensor], stages: int, split: bool) -> None:
        """
        Args:
            rows: the class word's in the token table of each text encoder, `(d,)`.
            split: whether keys and values have words of their own.
        """
        super().__init__()
        sides = 2 if split else 1
        heads = {key: Head(row.float(), stages, sides) for key, row in rows.items()}
        self.heads: Any = nn.ModuleDict(heads)

    def forward(self) -> Words:
        sides = {key: head() for key, head in self.heads.items()}
        keys: Rows = {key: x[0] for key, x in sides.items()}
        values: Rows = {key: x[-1] for key, x in sides.items()}
        return Words(keys, values)


def new_network(rows: Mapping[str, Tensor], stages: int, split: bool, seed: int) -> TokenNetwork:
    """Return an untrained network; the seed determines its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TokenNetwork(rows, stages, split)

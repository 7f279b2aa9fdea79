"""An identity: the tokens that stand for a person, and where they came from."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .adapter import Adapter
from .attention.blocks import Block

KeyValues = dict[Block, tuple[Tensor, Tensor]]


class Projections:
    """K', V' of an identity at every layer, computed once per dtype and kept off the device."""

    def __init__(self, adapter: Adapter, tokens: Tensor) -> None:
        self._adapter = adapter
        self._tokens = tokens
        self._stored: dict[torch.dtype, KeyValues] = {}

    @torch.no_grad()
    def on(self, device: torch.device, dtype: torch.dtype) -> KeyValues:
        """Return `{block: (K', V')}`, each `(b, tokens, width)`, on a device.

        The first call for a dtype projects there (weight by weight: the adapter is never resident
        on the device); later ones copy. The caller's tensors are freed with its reference.
        """
        if dtype not in self._stored:
            projected = self._adapter.project(self._tokens.to(device=device, dtype=dtype))
            self._stored[dtype] = _move(projected, torch.device("cpu"))
            return projected
        return _move(self._stored[dtype], device)


def _move(values: KeyValues, device: torch.device) -> KeyValues:
    return {block: (k.to(device), v.to(device)) for block, (k, v) in values.items()}


@dataclass(frozen=True, eq=False)
class Identity:
    """A person, ready to be applied to a model that fits `adapter`.

    Attributes:
        tokens: `(1, l, token_width)` float32 on the CPU.
        unconditional: the same shape: no identity, for rows that are not positive.
        adapter: the adapter that made the tokens and will project them.
        photos: one line per source photo, for the user to read.
    """

    tokens: Tensor
    unconditional: Tensor
    adapter: Adapter
    photos: tuple[str, ...]

    @cached_property
    def projections(self) -> Projections:
        """K', V' of the tokens (row 0) and of the unconditional tokens (row 1)."""
        return Projections(self.adapter, torch.cat([self.tokens, self.unconditional]))

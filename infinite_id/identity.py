"""An identity: the tokens that stand for a person, and where they came from."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .adapter import Adapter
from .attention.blocks import Block

KeyValues = dict[Block, tuple[Tensor, Tensor]]

RESIDENT = 16 * 2**20
"""Bytes of a device that unconditional K', V' may take; more is brought layer by layer."""


class Projections:
    """K', V' of tokens at every layer, computed once per dtype and kept off the device."""

    def __init__(self, adapter: Adapter, tokens: Tensor) -> None:
        self._adapter = adapter
        self._tokens = tokens
        self._stored: dict[torch.dtype, KeyValues] = {}

    def on(self, device: torch.device, dtype: torch.dtype) -> KeyValues:
        """Return `{block: (K', V')}`, each `(b, tokens, width)`, on a device.

        The first call for a dtype projects there (weight by weight: the adapter is never resident
        on the device); later ones copy. The caller's tensors are freed with its reference.
        """
        if dtype not in self._stored:
            return self._compute(device, dtype)
        return _move(self._stored[dtype], device)

    def near(self, device: torch.device, dtype: torch.dtype) -> KeyValues:
        """Return what `on` does, but large ones in the CPU's memory, pinned for quick copies."""
        if dtype not in self._stored:
            self._compute(device, dtype)
        stored = self._stored[dtype]
        return stored if _count_bytes(stored) > RESIDENT else _move(stored, device)

    @torch.no_grad()
    def _compute(self, device: torch.device, dtype: torch.dtype) -> KeyValues:
        projected = self._adapter.project(self._tokens.to(device=device, dtype=dtype))
        stored = _move(projected, torch.device("cpu"))
        self._stored[dtype] = pin(stored) if device.type == "cuda" else stored
        return projected


def pin(values: KeyValues) -> KeyValues:
    """Memory from which CUDA copies without waiting."""
    return {block: (k.pin_memory(), v.pin_memory()) for block, (k, v) in values.items()}


def _move(values: KeyValues, device: torch.device) -> KeyValues:
    return {block: (k.to(device), v.to(device)) for block, (k, v) in values.items()}


def _count_bytes(values: KeyValues) -> int:
    return sum(x.nbytes for pair in values.values() for x in pair)


@dataclass(frozen=True, eq=False)
class Features:
    """What the nets saw in photos, all that a mapper eats; float32 on the CPU.

    Attributes:
        face: `(n, face_width)`, as the adapter's recipe wants it.
        clip: `(n, l, clip_width)`; `(n, 0, 0)` for adapters without CLIP.
    """

    face: Tensor
    clip: Tensor


@dataclass(frozen=True, eq=False)
class Source:
    """A photo that an identity was made of.

    Attributes:
        label: for the user to read, such as 'photo 1 of 2 (512x512), face of score 0.93'.
        digest: SHA-256 of the photo's pixels, hexadecimal; tells photos apart without keeping them.
        thumbnail: `(h, w, 3)` uint8 RGB, the aligned face; None if it was left out.
    """

    label: str
    digest: str
    thumbnail: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Identity:
    """A person, ready to be applied to a model that fits `adapter`; or a sweep of n in-betweens.

    Attributes:
        tokens: `(n, l, token_width)` float32 on the CPU; n is 1 for a single identity.
        unconditional: `(1, l0, token_width)`: no identity, for rows that are not positive; l is a
            multiple of l0.
        adapter: the adapter that made the tokens and will project them.
        sources: the photos.
        shares: `(n, l)`, not negative: how much each token counts in the attention, relative to
            the others; None if all count alike.
        features: what the tokens were mapped from; None if no single such thing exists (a stack).
    """

    tokens: Tensor
    unconditional: Tensor
    adapter: Adapter
    sources: tuple[Source, ...] = ()
    shares: Tensor | None = None
    features: Features | None = None

    @property
    def count(self) -> int:
        """How many identities this is: more than one for a sweep."""
        return self.tokens.shape[0]

    @cached_property
    def projections(self) -> Projections:
        """K', V' of the tokens."""
        return Projections(self.adapter, self.tokens)

    @cached_property
    def unconditional_projections(self) -> Projections:
        """K', V' of the unconditional tokens."""
        return Projections(self.adapter, self.unconditional)

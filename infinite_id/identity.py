"""An identity: the tokens that stand for a person, and where they came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from .adapter import Adapter
from .attention.blocks import Block

KeyValues = dict[Block, tuple[Tensor, Tensor]]


class Memory(Protocol):
    """Who knows how much memory there is."""

    def has_room(self, device: torch.device, size: int) -> bool:
        """Whether a device has room for so many bytes throughout a sampling run."""

    def pin(self, tensors: Sequence[Tensor], owner: object) -> None:
        """Make copies from the CPU's memory quick, until the owner is gone, if that can be."""


class _Placed(dict[Block, tuple[Tensor, Tensor]]):
    """K', V' on a device, which those who use them keep alive; a plain dict has no weak ones."""


class Projections:
    """K', V' of tokens at every layer, computed once per dtype and kept off the device."""

    def __init__(self, adapter: Adapter, tokens: Tensor) -> None:
        self._adapter = adapter
        self._tokens = tokens
        self._stored: dict[torch.dtype, KeyValues] = {}
        self._pinned: set[torch.dtype] = set()
        self._placed: WeakValueDictionary[tuple[torch.device, torch.dtype], _Placed]
        self._placed = WeakValueDictionary()

    def on(self, device: torch.device, dtype: torch.dtype) -> KeyValues:
        """Return `{block: (K', V')}`, each `(b, tokens, width)`, on a device.

        The first call for a dtype projects there (weight by weight: the adapter is never resident
        on the device); later ones copy, unless somebody still holds what an earlier one returned.
        """
        placed = self._placed.get((device, dtype))
        if placed is None:
            if dtype in self._stored:
                placed = _Placed(_move(self._stored[dtype], device))
            else:
                placed = _Placed(self._compute(device, dtype))
            self._placed[device, dtype] = placed
        return placed

    def near(self, device: torch.device, dtype: torch.dtype, memory: Memory) -> KeyValues:
        """Return what `on` does; in the CPU's memory, ready to be copied, if the device is full."""
        if dtype not in self._stored:
            self._compute(device, dtype)
        stored = self._stored[dtype]
        if memory.has_room(device, _count_bytes(stored)):
            return self.on(device, dtype)
        if dtype not in self._pinned:
            self._pinned.add(dtype)
            memory.pin([x for pair in stored.values() for x in pair], self)
        return stored

    @torch.no_grad()
    def _compute(self, device: torch.device, dtype: torch.dtype) -> KeyValues:
        projected = self._adapter.project(self._tokens.to(device=device, dtype=dtype))
        self._stored[dtype] = _move(projected, torch.device("cpu"))
        return projected


_SHARED: WeakValueDictionary[tuple[int, int], Projections] = WeakValueDictionary()
"""Of adapters' unconditional tokens, by the ids of both, which live as long as the value does."""


def _share_projections(adapter: Adapter, tokens: Tensor) -> Projections:
    key = id(adapter), id(tokens)
    found = _SHARED.get(key)
    if found is None:
        found = _SHARED[key] = Projections(adapter, tokens)
    return found


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
            multiple of l0. Identities of one adapter share one tensor: see `Adapter.share`.
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
        """K', V' of the unconditional tokens: one for all identities that have the same ones."""
        return _share_projections(self.adapter, self.unconditional)

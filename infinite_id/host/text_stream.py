"""Decides when the text stream runs, and replaces it when it does not."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from ..attention.blocks import Block
from ..savings import Savings

log = logging.getLogger(__name__)

NEVER = -1.0
"""A noise level that no sampler reaches."""
MISSES = 2
"""After this many misses in a row, features of such an evaluation are not looked up again."""


Key = tuple[Hashable, int]
"""An evaluation's signature, and how many of that signature came before at the noise level."""


Name = tuple[Hashable, ...]
"""The key of a chunk's features: its evaluation's key, the cond, which forward of the cond, and
which part of the picture."""


class TextRows(Enum):
    """Where the identity stream finds the text stream in one evaluation of the conds."""

    IN_BATCH = "its rows are in the batch"
    ADDED = "each forward adds its rows, with the identity stream's latents"
    RECALLED = "it has no rows; its features are those of an earlier evaluation"
    NONE = "it has no rows, and nobody reads it"


class MissingError(Exception):
    """The features to recall were never kept, or are of other rows."""


@dataclass(eq=False)
class Features:
    """Keys and values of the text stream's self-attention in one forward.

    Attributes:
        chunks: each chunk's key.
        layers: K_t and V_t of each block, `(chunks or 1, 1, b, tokens, width)`; 1 if all chunks
            have the same text.
    """

    chunks: tuple[Name, ...]
    layers: dict[Block, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Memory:
    """The text stream's features by the key of each chunk of a forward."""

    def __init__(self) -> None:
        self._stored: dict[Name, tuple[Features, int]] = {}

    def keep(self, features: Features, block: Block, k: Tensor, v: Tensor) -> None:
        """Add copies of a block's K_t and V_t to the features of a forward."""
        features.layers[block] = k.clone(), v.clone()
        self._stored |= {chunk: (features, place) for place, chunk in enumerate(features.chunks)}

    def recall(self, chunks: tuple[Name, ...], block: Block, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return a block's K_t and V_t for these chunks, `(chunks or 1, 1, b, tokens, width)`.

        Args:
            like: K_id of this forward, `(chunks, people, b, tokens, width)`.

        Raises:
            MissingError: if a chunk's features were not kept, or have another b or tokens.
        """
        found = [self._find(chunk, block, like) for chunk in chunks]
        first = found[0][0]
        if first.chunks == chunks and all(features is first for features, _ in found):
            return first.layers[block]
        pairs = [(features.layers[block], place) for features, place in found]
        k, v = (
            torch.cat([pair[which][place % len(pair[which])][None] for pair, place in pairs])
            for which in (0, 1)
        )
        return k, v

    def _find(self, chunk: Name, block: Block, like: Tensor) -> tuple[Features, int]:
        features, place = self._stored.get(chunk, (None, 0))
        if features is None or block not in features.layers:
            raise MissingError
        if features.layers[block][0].shape[2:] != like.shape[2:]:
            raise MissingError
        return features, place

    def adopt(
        self,
        key: Hashable,
        layers: Mapping[tuple[Name, ...], dict[Block, tuple[Tensor, Tensor]]],
    ) -> None:
        """Take the features of an earlier run for an evaluation.

        Args:
            layers: as in `Features`, by the chunks' keys without the evaluation's.
        """
        for parts, blocks in layers.items():
            chunks = tuple((key, *part) for part in parts)
            features = Features(chunks, dict(blocks))
            self._stored |= {chunk: (features, place) for place, chunk in enumerate(chunks)}

    def drop(self, key: Hashable) -> None:
        """Forget the features of an evaluation, which is about to run anew."""
        self._stored = {name: found for name, found in self._stored.items() if name[0] != key}

    @property
    def nbytes(self) -> int:
        """What is kept, in bytes."""
        features = {id(one): one for one, _ in self._stored.values()}.values()
        return sum(x.nbytes for one in features for pair in one.layers.values() for x in pair)

    def clear(self) -> None:
        self._stored.clear()


class TextStream:
    """Decides whether text rows run in each evaluation, and predicts them if they do not.

    The key of an evaluation is its signature (what is evaluated, of what shape) and how many
    evaluations of that signature came before it at the same noise level.

    Attributes:
        memory: features of earlier evaluations.
        keeps: whether it gets those of this run's evaluations.

    Args:
        lowest: the noise level at and below which nobody reads the text stream.
    """

    def __init__(self, savings: Savings, lowest: float = NEVER) -> None:
        self.savings = savings
        self.keeps = savings.every > 1
        self.memory = Memory()
        self.is_timed = self.keeps or lowest > NEVER
        self._lowest = lowest
        self._has_ended = False
        self._sigma, self._age = float("nan"), savings.every - 1  # in noise levels
        self._course: Hashable = None
        self._seen: Counter[Hashable] = Counter()
        self._missed: Counter[Hashable] = Counter()
        self._slopes: dict[Key, list[Tensor]] = {}

    @property
    def goes_on(self) -> bool:
        """Whether the text stream's latents have advanced in every step so far."""
        return not self._has_ended

    def is_read(self, sigmas: Tensor) -> bool:
        """Whether anybody reads the text stream at one of these noise levels."""
        return bool((sigmas > self._lowest).any())

    def plan(
        self, signature: Hashable, sigma: float, is_full: bool = True, course: Hashable = None
    ) -> tuple[TextRows, Key]:
        """Return where an evaluation's text rows come from, and the evaluation's key.

        A sigma that differs from the last one is a new noise level. If it is higher, the sampler
        climbs, and features from the lower levels are of no use.

        Args:
            is_full: whether all of the UNet runs at this noise level. If not, no self-attention
                runs, and the plan stays as at the level before.
            course: the conds', see `read_course`. If it changes, kept features are of no use.
        """
        if not self.is_timed:
            return TextRows.IN_BATCH, (signature, 0)
        if sigma != self._sigma:
            self._enter(sigma, is_full, course)
        key = signature, self._seen[signature]
        self._seen[signature] += 1
        if sigma <= self._lowest:
            self._forget()
            self._has_ended = True
            return TextRows.NONE, key
        if self._has_ended:  # its latents were not its own
            return TextRows.ADDED, key
        known = key in self._slopes and self._missed[signature] < MISSES
        return TextRows.RECALLED if self._age and known else TextRows.IN_BATCH, key

    def _enter(self, sigma: float, is_full: bool, course: Hashable) -> None:
        self._age += is_full
        is_new = sigma > self._sigma or course != self._course
        if is_full and (is_new or self._age >= self.savings.every):
            self._age = 0
            self._forget()
        self._sigma, self._course = sigma, course
        self._seen.clear()

    def _forget(self) -> None:
        self._slopes.clear()
        self.memory.clear()

    def miss(self, signature: Hashable) -> None:
        """Note that an evaluation could not be recalled."""
        self._missed[signature] += 1
        if self._missed[signature] == MISSES:
            log.warning(
                "Infinite-ID Save Time: another node cuts the picture differently at each step, "
                "so that text_every saves nothing here. The text stream runs at every step."
            )

    def remember(self, key: Key, x: Tensor, sigma: Tensor, denoised: Sequence[Tensor]) -> None:
        """Keep the slopes of the text rows; x and denoised `(rows, c, h, w)`, sigma `(rows,)`."""
        if self.keeps:
            self._slopes[key] = [(x - one) / append_dims(sigma, x) for one in denoised]

    def predict(self, key: Key, x: Tensor, sigma: Tensor) -> list[Tensor]:
        """Predict the denoised text rows of each group of conds along the last slopes."""
        signature, _ = key
        self._missed[signature] = 0
        return [x - slope * append_dims(sigma, x) for slope in self._slopes[key]]


def append_dims(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma.view(-1, *[1] * (x.ndim - 1))

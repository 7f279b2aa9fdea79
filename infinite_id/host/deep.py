"""Decides at which noise levels the UNet's deep features are computed, and keeps them.

DeepCache (arXiv 2312.00858, 3.2) keeps the output of the UNet's deeper levels. At the next steps it
runs the outermost level alone on that output. Here that is done for the rows of both streams.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..streams import Layout
from .text_stream import MISSES, MissingError

log = logging.getLogger(__name__)

Name = tuple[Hashable, ...]
"""The key of a chunk's features: its cond, which forward of the cond, and what it shows."""


@dataclass(frozen=True)
class Step:
    """How one evaluation of the conds runs.

    Attributes:
        number: how many evaluations of its signature came before it at the same noise level.
        is_full: whether all of the UNet runs; else the outermost level alone.
        key: part of the key of its features.
    """

    number: int
    is_full: bool
    key: Hashable = None


@dataclass(frozen=True, eq=False)
class Kept:
    """The deep features of one forward.

    Attributes:
        names: each chunk's key.
        layout: the forward's rows.
        h: the output of the last deeper block, upsampled, `(rows, c, h, w)`.
        skip: the shape of the outermost level's own features, to which they are joined.
    """

    names: tuple[Name, ...]
    layout: Layout
    h: Tensor
    skip: torch.Size


class DeepFeatures:
    """Decides how each evaluation runs, and keeps the features of each chunk.

    A sigma that differs from the last one is a new noise level. It runs in full if it is higher
    than the last, or if other people, controls or hooks act: kept features show the former ones.

    With a threshold, the features of two such levels tell how fast they change. All of the UNet
    runs again before they would have changed by more; at first at two levels, to see that.

    Args:
        every: all of the UNet runs at every n-th noise level.
        change: the threshold, a share of the features' size; 0 for a fixed rhythm.

    Attributes:
        levels: the number of noise levels so far.
        full: at how many of them all of the UNet ran.
    """

    def __init__(self, every: int, change: float = 0.0) -> None:
        self._every = every
        self._change = change
        self._wait = every  # noise levels from one in full to the next
        self.levels = self.full = 0
        self._last_full = 0
        self._sigma, self._age = float("nan"), every - 1  # in noise levels
        self._span = 0  # noise levels between the last two in full
        self._acting: Sequence[object] = ()  # people, and the conds' course
        self._seen: Counter[Hashable] = Counter()
        self._missed: Counter[Hashable] = Counter()
        self._stored: dict[Name, tuple[Kept, int]] = {}
        self._former: dict[Name, tuple[Kept, int]] = {}  # of the level in full before
        self._changes: list[Tensor] = []

    def begin(self, signature: Hashable, sigma: float, acting: Sequence[object]) -> Step:
        """Decide how an evaluation runs; `acting` lists the people, controls and hooks that act."""
        if sigma != self._sigma:
            self._enter(sigma, acting)
        number = self._seen[signature]
        self._seen[signature] += 1
        return Step(number, is_full=not self._age)

    def _enter(self, sigma: float, acting: Sequence[object]) -> None:
        self.levels += 1
        if self._change and not self._age:
            self._wait = self._plan()
        self._age += 1
        if sigma > self._sigma or self._age >= self._wait or acting != self._acting:
            self._span, self._age = self._age, 0
            self._former, self._stored = (self._stored if self._change else {}), {}
        self._sigma, self._acting = sigma, acting
        self._seen.clear()

    def _plan(self) -> int:
        """After a level in full, choose at which one after it all of the UNet runs again."""
        self._former = {}
        changes, self._changes = self._changes, []
        if not changes:
            return 1
        rate = float(torch.stack([x.cpu() for x in changes]).max()) / self._span
        waits = range(1, self._every)
        return next((n for n in waits if not n * rate <= self._change), self._every)  # NaN: 1

    def note_full(self) -> None:
        """Note that all of the UNet runs at this level."""
        self.full += self._last_full != self.levels
        self._last_full = self.levels

    def describe(self) -> str | None:
        """Say how often all of the UNet ran; None if it never did."""
        return (
            f"all of the UNet at {self.full} of {self.levels} noise levels" if self.full else None
        )

    def is_found(self, signature: Hashable) -> bool:
        """Whether an evaluation's features are worth looking for."""
        return self._missed[signature] < MISSES

    def find(self, signature: Hashable) -> None:
        """Note that an evaluation's features were found."""
        self._missed[signature] = 0

    def miss(self, signature: Hashable) -> None:
        """Note that an evaluation's features were not found."""
        self._missed[signature] += 1
        if self._missed[signature] == MISSES:
            log.warning(
                "Infinite-ID Save Time: another node asks the model for something else at each "
                "step, cuts the picture differently or runs the UNet itself, so that deep_every "
                "saves nothing here. All of the UNet runs at every step."
            )

    def keep(self, kept: Kept) -> None:
        for place, name in enumerate(kept.names):
            if name in self._former:
                self._compare(kept, place, *self._former[name])
        self._stored |= {name: (kept, place) for place, name in enumerate(kept.names)}

    def _compare(self, kept: Kept, place: int, former: Kept, its_place: int) -> None:
        """Note by how much a chunk's identity rows have changed, relative to their size."""
        a = kept.layout.part(kept.h)[0][place]
        b = former.layout.part(former.h)[0][its_place].to(a.device)
        if a.shape == b.shape:
            size, moved = (torch.linalg.vector_norm(x, dtype=torch.float32) for x in (b, a - b))
            self._changes.append(moved / size)

    def recall(self, names: tuple[Name, ...], layout: Layout) -> Kept:
        """Return the features of these chunks with their rows in this layout.

        Raises:
            MissingError: if the features of a chunk, or of some of its rows, were not kept.
        """
        found = [self._find(name, layout) for name in names]
        kept = {id(one): one for one, _ in found}.values()
        first, _ = found[0]
        if len(kept) == 1 and first.names == names and first.layout == layout:
            return first
        if len({(one.h.shape[1:], one.skip[1:]) for one in kept}) > 1:
            raise MissingError
        parts = [(*one.layout.part(one.h), place) for one, place in found]
        h = torch.cat([identity[place].flatten(0, 1) for identity, _, place in parts])
        if layout.streams.has_text:
            texts = parts[:1] if layout.has_one_text else parts
            rows = [text[place % len(text)].flatten(0, 1) for _, text, place in texts]
            h = layout.join(h, torch.cat(rows))
        return Kept(names, layout, h, first.skip)

    def _find(self, name: Name, layout: Layout) -> tuple[Kept, int]:
        kept, place = self._stored.get(name, (None, 0))
        if kept is None:
            raise MissingError
        there, here = kept.layout.streams, layout.streams
        if there.without_text() != here.without_text() or here.has_text > there.has_text:
            raise MissingError
        return kept, place

    @property
    def nbytes(self) -> int:
        """What is kept, in bytes."""
        both = (*self._stored.values(), *self._former.values())
        kept = {id(one): one for one, _ in both}.values()
        return sum(one.h.nbytes for one in kept)

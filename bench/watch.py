"""Counts what passes PyTorch's dispatcher: operators, bytes, allocations, attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from ..infinite_id.count import Storages, count_flops, list_tensors

ATTENTION = "scaled_dot_product"


# Common operators without matrix products: the counter would decompose them to find that out.
_NAMES = """
    add alias cat chunk dropout expand flatten gelu group_norm layer_norm mean mul reshape silu
    slice sub to transpose unsqueeze view
"""
FREE = frozenset(_NAMES.split())


@dataclass
class Counts:
    """What was counted.

    Attributes:
        bytes_moved: bytes of the tensors that operators read and wrote, views excepted.
        peak: the most bytes at once of tensors made in the block.
        calls: operators by name, such as 'linear'.
        attention: calls by `(rows, queries, keys)`.
    """

    flops: int = 0
    bytes_moved: int = 0
    allocations: int = 0
    peak: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    attention: Counter[tuple[int, int, int]] = field(default_factory=Counter)


@contextmanager
def watch() -> Iterator[Counts]:
    """Count until the block ends."""
    counts = Counts()
    with _Watch(counts):
        yield counts


class _Watch(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts
        self._storages = Storages()

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__.partition(".")[0]
        if name in FREE:
            result = func(*args, **(kwargs or {}))
        else:
            with count_flops() as flops:
                result = func(*args, **(kwargs or {}))
            self._counts.flops += flops.get_total_flops()
        given, made = list_tensors((args, kwargs)), list_tensors(result)
        self._counts.calls[name] += 1
        if name.startswith(ATTENTION):
            q, k = given[:2]
            self._counts.attention[q.shape[0], q.shape[-2], k.shape[-2]] += 1
        if self._storages.note(given, made) or func._schema.is_mutable:
            self._counts.bytes_moved += sum(x.nbytes for x in (*given, *made))
        self._counts.allocations = self._storages.made
        self._counts.peak = self._storages.peak
        return result

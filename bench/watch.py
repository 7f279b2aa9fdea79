"""Counts what passes PyTorch's dispatcher: operators, bytes, allocations, attention."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

ATTENTION = "scaled_dot_product"


def _count_attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)


# PyTorch's counter passes over it.
CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _count_attention}
# The commonest operators that multiply no matrices: the counter would take them apart to see that.
_NAMES = """
    add alias cat chunk dropout expand flatten gelu group_norm layer_norm mean mul reshape silu
    slice sub to transpose unsqueeze view
"""
FREE = frozenset(_NAMES.split())


@dataclass
class Counts:
    """What was counted.

    Attributes:
        bytes_moved: sizes of the tensors that the operators read and wrote, all but views.
        peak: the most bytes that tensors made meanwhile took at once.
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
        self._live = 0
        self._own: set[int] = set()  # storages that were made meanwhile and live

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__.partition(".")[0]
        if name in FREE:
            result = func(*args, **(kwargs or {}))
        else:
            with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as flops:
                result = func(*args, **(kwargs or {}))
            self._counts.flops += flops.get_total_flops()
        given = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_iter(result) if isinstance(x, Tensor)]
        self._counts.calls[name] += 1
        if name.startswith(ATTENTION):
            q, k = given[:2]
            self._counts.attention[q.shape[0], q.shape[-2], k.shape[-2]] += 1
        storages = {_storage(x) for x in given}
        fresh = [x for x in made if _storage(x) not in storages]
        if fresh or func._schema.is_mutable:
            self._counts.bytes_moved += sum(x.nbytes for x in (*given, *made))
        for x in fresh:
            self._note(x)
        return result

    def _note(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._own or size == 0:
            return
        self._own.add(key)
        self._live += size
        self._counts.allocations += 1
        self._counts.peak = max(self._counts.peak, self._live)
        weakref.finalize(storage, self._free, key, size).atexit = False

    def _free(self, key: int, size: int) -> None:
        self._own.discard(key)
        self._live -= size


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata

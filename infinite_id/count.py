"""Counts memory and operations of a computation. Its tensors need not have any storage."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


class Storages:
    """Counts storages made since its own creation. A storage counts until nobody holds it.

    Attributes:
        made: how many there have been; views and empty tensors make none.
        peak: the most bytes at once.
    """

    def __init__(self) -> None:
        self.made = 0
        self.peak = 0
        self._live = 0
        self._own: set[int] = set()

    def note(self, given: Iterable[Tensor], result: Iterable[Tensor]) -> list[Tensor]:
        """Note an operator's inputs and outputs; return the outputs that are no views."""
        before = {_key(x) for x in given}
        fresh = [x for x in result if _key(x) not in before]
        for x in fresh:
            self._add(x)
        return fresh

    def _add(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = _key(x), storage.nbytes()
        if key in self._own or not size:
            return
        self._own.add(key)
        self.made += 1
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._free, key, size).atexit = False

    def _free(self, key: int, size: int) -> None:
        self._own.discard(key)
        self._live -= size


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata


class PeakMemory(TorchDispatchMode):
    """While active, counts each storage that an operator makes until nobody holds it."""

    def __init__(self) -> None:
        super().__init__()
        self._storages = Storages()

    @property
    def peak(self) -> int:
        """The most bytes at once."""
        return self._storages.peak

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._storages.note(list_tensors((args, kwargs)), list_tensors(result))
        return result


def list_tensors(tree: Any) -> list[Tensor]:
    """All tensors of nested tuples, lists and dicts."""
    return [x for x in tree_iter(tree) if isinstance(x, Tensor)]


def count_flops() -> FlopCounterMode:
    """PyTorch's counter. It does not know the CPU's attention operators, so they are added here."""
    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _count_forward,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _count_backward,
        },
    )


def _count_forward(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _count_backward(gradient: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, q, k, v)

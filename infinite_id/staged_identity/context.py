"""A context that carries those of each stage through other nodes.

Nodes that join, mix and scale prompts compute with the context alone, and drop what comes with it.
So the context itself does with the contexts of each stage what is done with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from .stages import Contexts

_FOLLOWED = {
    *("cat", "concat", "concatenate", "__getitem__", "clone", "__deepcopy__"),
    *("add", "__add__", "__radd__", "sub", "__sub__", "__rsub__", "lerp"),
    *("mul", "multiply", "__mul__", "__rmul__", "div", "__truediv__"),
}
"""Names of PyTorch's functions whose results carry the stages; all others give plain tensors."""


class StagedContext(Tensor):
    """The mean of all stages, with the contexts that it is the mean of."""

    contexts: Contexts

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types

        def call(pick: Callable[[StagedContext], Tensor]) -> Any:
            own, named = tree_map_only(StagedContext, pick, (args, dict(kwargs or {})))
            return func(*own, **named)

        with torch._C.DisableTorchFunctionSubclass():
            mean = call(lambda x: x.as_subclass(Tensor))
            if getattr(func, "__name__", "") not in _FOLLOWED:
                return mean
            leaves = tree_leaves((args, kwargs))
            staged = [x.contexts for x in leaves if isinstance(x, StagedContext)]
            starts = sorted({start for contexts in staged for start in contexts.starts})
            pairs = tuple(
                (call(partial(_pick, start, 0)), call(partial(_pick, start, 1))) for start in starts
            )
            return carry(Contexts(tuple(starts), pairs, mean))


def _pick(start: Fraction, side: int, context: StagedContext) -> Tensor:
    return context.contexts.at(start)[side]


def carry(contexts: Contexts) -> StagedContext:
    """Return the mean of contexts, which carries them.

    It is a copy: if another node changes it in place, it no longer equals their mean.
    """
    mean = contexts.mean.clone().as_subclass(StagedContext)
    mean.contexts = contexts
    return mean

"""Hooks a forward: image cross-attention and mixed attention around its present attention.

APPLY_MODEL sees the patch tables as this very forward will use them. So every patch of another
pack is wrapped here and never lost: set before or after ours, statically or for one call.
"""

from __future__ import annotations

from typing import Any

from comfy.patcher_extension import WrapperExecutor
from torch import Tensor

from ..attention.blocks import Block
from .attend import Replacement
from .compiled import uncompiled
from .forward import Forward, Options, begin, is_patched
from .image_attention import make_attn2
from .mixed_attention import make_attn1, part_rows
from .rows import NAME
from .shallow import keep_or_recall
from .stale import count_rows


def apply_model(
    executor: WrapperExecutor,
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: Options = {},  # noqa: B006  # the host's own signature
    **kwargs: Any,
) -> Tensor:
    """Run one forward with the identity's hooks around the attention that is patched in.

    Wraps APPLY_MODEL: `x (rows, c, h, w)` -> the model's output of the same shape and dtype.
    """
    names = kwargs.pop(NAME, None)
    forward = begin(x, names, c_crossattn, transformer_options)
    given, layout = forward.given, forward.layout
    *inputs, control, kwargs = x, t, c_concat, c_crossattn, control, kwargs
    if layout != given:
        *inputs, control, kwargs = _arrange((*inputs, control, kwargs), len(x), forward)
    run, options = executor, transformer_options
    if is_patched(options):
        options = count_rows(options, forward.rows)
    if forward.acting or (forward.adds_text and _replaced_self_attention(options)):
        run, options = uncompiled(executor), _hook(options, forward)
    if forward.evaluation.step is not None:
        run, control, options = keep_or_recall(executor, control, options, forward)
    out = run(*inputs, control, options, **kwargs)
    if forward.acting:
        forward.run.is_drawn |= forward.called == _list_blocks(forward)
    return out if layout == given else given.arrange(out, layout)


def _arrange(inputs: Any, rows: int, forward: Forward) -> Any:
    """Bring all tensors that have the call's number of rows into the forward's layout."""
    if isinstance(inputs, dict):
        return {name: _arrange(part, rows, forward) for name, part in inputs.items()}
    if isinstance(inputs, list | tuple):
        return type(inputs)(_arrange(part, rows, forward) for part in inputs)
    if isinstance(inputs, Tensor) and inputs.ndim and inputs.shape[0] == rows:
        return forward.layout.arrange(inputs, forward.given)
    return inputs


def _list_blocks(forward: Forward) -> set[Block]:
    return {Block(*block) for block in forward.acting.people[0].key_values}


def _hook(options: Options, forward: Forward) -> Options:
    """Copy the options and wrap every layer's attention; the caller's tables are not changed."""
    tables: dict[str, dict[Any, Replacement]] = options.get("patches_replace", {})
    blocks = _list_blocks(forward) if forward.acting else set()
    attn1 = {key: part_rows(forward, own) for key, own in tables.get("attn1", {}).items()}
    attn2 = dict(tables.get("attn2", {}))
    for block in blocks:
        attn2[block] = make_attn2(forward, block, _foreign(tables, "attn2", block))
        if forward.reads_text:
            attn1[block] = make_attn1(forward, block, _foreign(tables, "attn1", block))
    return {**options, "patches_replace": {**tables, "attn1": attn1, "attn2": attn2}}


def _replaced_self_attention(options: Options) -> dict[Any, Replacement]:
    found: dict[Any, Replacement] = options.get("patches_replace", {}).get("attn1", {})
    return found


def _foreign(
    tables: dict[str, dict[Any, Replacement]], name: str, block: Block
) -> Replacement | None:
    """The replacement that the host would have called for this block, if any."""
    table = tables.get(name, {})
    return table.get(block, table.get((block.stage, block.number)))

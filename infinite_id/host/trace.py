"""Which rows of a cross-attention are the identity stream's, whatever other nodes made of them.

Nodes that give regions a prompt of their own repeat rows of the queries, once for each region, and
put the results together behind the attention. What they repeat they are asked: their patches are
called once more, with the numbers of the rows for queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..streams import Layout
from .forward import Forward

BASE = 256
"""Numbers are told in two digits of this base, which every floating-point type holds."""


@dataclass(frozen=True, eq=False)
class Whole:
    """The identity rows of an attention that has the rows of its forward."""

    layout: Layout

    def take(self, out: Tensor) -> Tensor:
        """Their part of the attention's output, `(..., tokens, width)`, to be added to."""
        return self.layout.part(out)[0]

    def select(self, x: Tensor) -> Tensor:
        """Their part of queries or keys, `(rows, tokens, width)`."""
        return self.layout.split(x)[0]

    def deal(self, x: Tensor) -> Tensor:
        """What each identity row of the forward has, for each of them here."""
        return x

    def put(self, out: Tensor, _: Tensor) -> Tensor:
        """The output with what was added to the part taken, which is a view of it."""
        return out


@dataclass(frozen=True, eq=False)
class Traced:
    """The identity rows of an attention whose rows another node has repeated.

    Attributes:
        places: where they are among the attention's rows.
        sources: for each, which of the forward's identity rows it repeats.
    """

    places: Tensor
    sources: Tensor

    def take(self, out: Tensor) -> Tensor:
        return out[self.places]

    def select(self, x: Tensor) -> Tensor:
        return x[self.places]

    def deal(self, x: Tensor) -> Tensor:
        return x[self.sources]

    def put(self, out: Tensor, taken: Tensor) -> Tensor:
        return out.index_copy(0, self.places, taken)


def pick_identity(forward: Forward, q: Tensor, options: dict[str, Any]) -> Whole | Traced:
    """The identity rows of a cross-attention with queries `(rows, tokens, width)`.

    Raises:
        ValueError: if another node changed the rows, and what they are cannot be known.
    """
    if len(q) == forward.rows:
        return Whole(forward.layout)
    if len(q) not in forward.traces:
        forward.traces[len(q)] = _trace(forward, q, options)
    known = forward.layout.part(torch.arange(forward.rows))[0].flatten().tolist()
    sources = {row: source for source, row in enumerate(known)}
    found = [(i, sources[row]) for i, row in enumerate(forward.traces[len(q)]) if row in sources]
    places, of = torch.tensor(found, device=q.device).unbind(1)
    return Traced(places, of)


def _trace(forward: Forward, q: Tensor, options: dict[str, Any]) -> list[int]:
    """For each row of the queries, the row of the forward that it repeats."""
    numbers = torch.arange(forward.rows, device=q.device)
    digits = torch.stack([numbers // BASE, numbers % BASE], dim=1).to(q)
    n = digits[:, None].expand(-1, q.shape[1], -1)
    k = v = q.new_zeros(1).expand(*forward.context)
    try:
        for patch in forward.patches.get("attn2_patch", ()):
            n, k, v = patch(n, k, v, dict(options))
        found = _read(n[:, 0].tolist())
    except Exception as error:
        raise ValueError(_refusal(forward, q)) from error
    if len(found) != len(q) or not set(found) <= set(range(forward.rows)):
        raise ValueError(_refusal(forward, q))
    return found


def _read(digits: Sequence[Sequence[float]]) -> list[int]:
    """Numbers from two digits each; -1 for what is none."""
    whole = [all(digit.is_integer() for digit in pair) for pair in digits]
    return [
        int(high * BASE + low) if is_whole else -1
        for (high, low), is_whole in zip(digits, whole, strict=True)
    ]


def _refusal(forward: Forward, q: Tensor) -> str:
    return (
        f"Infinite-ID: another node has made {len(q)} rows of the cross-attention's "
        f"{forward.rows}, such as one for regional prompts, and whose they are cannot be known. "
        "Take that node out, or Apply Infinite-ID."
    )

"""Finds the identity stream's rows in a cross-attention that other nodes have changed.

Nodes for regional prompts repeat rows of the queries, once for each region, and combine the results
after the attention. To find the repeated rows, the nodes' patches are called once more. Their
queries then hold the numbers of the rows.
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
"""Row numbers are two digits in this base. Every floating-point type holds such digits."""


@dataclass(frozen=True, eq=False)
class Whole:
    """The identity rows of an attention whose rows are those of its forward."""

    layout: Layout

    def take(self, out: Tensor) -> Tensor:
        """Return the identity rows of the output, `(..., tokens, width)`, to be added to."""
        return self.layout.part(out)[0]

    def select(self, x: Tensor) -> Tensor:
        """Return the identity rows of queries, keys or values, `(rows, tokens, width)`."""
        return self.layout.split(x)[0]

    def deal(self, x: Tensor) -> Tensor:
        """Map values of the forward's identity rows to those here: they are the same."""
        return x

    def put(self, out: Tensor, _: Tensor) -> Tensor:
        """Return the output. It has the additions already, since `take` gives a view of it."""
        return out


@dataclass(frozen=True, eq=False)
class Traced:
    """The identity rows of an attention whose rows another node has repeated.

    Attributes:
        places: indices of the identity rows among the attention's rows.
        sources: for each of them, which of the forward's identity rows it repeats.
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
    """Find the identity rows of a cross-attention with queries `(rows, tokens, width)`.

    Raises:
        ValueError: if another node changed the rows and their origin is unknown.
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
    """Return the number of each pair of digits; -1 if a digit is not whole."""
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

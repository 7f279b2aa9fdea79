"""Names for the rows of a forward, which travel with the rows through the host.

The host, and nodes that wrap the model, cut and repeat rows freely. The names are one more tensor
among the conds, with a row for each row of the batch. It is cut and repeated with the others. So
each forward can read what its rows are and need not guess it from their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import Any

import torch
from comfy.conds import CONDRegular
from torch import Tensor

from ..attention.mask import Area
from .conds import Conds

NAME = "infinite_id_rows"
"""The cond's name; the host hands it to `apply_model` as an argument."""


@dataclass(frozen=True)
class Cond:
    """One cond of an evaluation.

    Attributes:
        group: index of its group in the evaluation, as in `cond_or_uncond`.
        positive: whether the group is positive.
        uuid: the host's name for the cond; copies share it.
        area: the crop of the latent that it covers; None for all of it.
    """

    group: int
    positive: bool
    uuid: Any = None
    area: Area | None = None


@dataclass(frozen=True)
class Chunks:
    """The rows of a forward, one chunk for each cond.

    Attributes:
        conds: for each chunk, which of the evaluation's conds it is.
        places: the rows of the evaluation's batch that each chunk holds; None if unknown.
    """

    conds: tuple[int, ...]
    places: tuple[int, ...] | None


class _Names(CONDRegular):
    """`(rows, 2)`: each row's cond and its place in the evaluation's batch; on the CPU."""

    def process_cond(self, batch_size: int, *_: Any, **__: Any) -> _Names:
        return _Names(torch.stack([self.cond.expand(batch_size), torch.arange(batch_size)], dim=1))


def list_conds(groups: Sequence[Conds | None], positive: frozenset[int]) -> list[Cond]:
    """Return all conds of an evaluation, in the order in which `name_rows` numbers them."""
    return [
        Cond(
            group=index,
            positive=index in positive,
            uuid=cond["uuid"],
            area=Area(*cond["area"]) if "area" in cond else None,
        )
        for index, group in enumerate(groups)
        for cond in group or ()
    ]


def name_rows(groups: Sequence[Conds | None]) -> list[Conds | None]:
    """Copy the conds and give names to their rows."""
    numbers = count()

    def name(cond: dict[str, Any]) -> dict[str, Any]:
        names = _Names(torch.tensor([next(numbers)]))
        return {**cond, "model_conds": {**cond["model_conds"], NAME: names}}

    return [None if group is None else [name(cond) for cond in group] for group in groups]


def read_chunks(
    names: Tensor | None, rows: int, conds: Sequence[Cond], options: dict[str, Any]
) -> Chunks | None:
    """Find out what the `rows` rows of a forward are; None if that is unknown.

    A wrapper may drop the names, or pass on more or fewer names than rows. Then the host's own
    `cond_or_uncond` and uuids are used if they fit.
    """
    if names is None or len(names) != rows:
        return _guess_chunks(rows, conds, options)
    found = [
        (cond, places)
        for cond, group in groupby(names.tolist(), key=lambda name: name[0])
        for places in _split([place for _, place in group])
    ]
    places = {place for _, place in found}
    if len(places) > 1:
        return None
    return Chunks(tuple(cond for cond, _ in found), places.pop())


def _split(places: Sequence[int]) -> list[tuple[int, ...]]:
    """Split one cond's rows if a place repeats: a forward may hold several tiles of the cond."""
    parts: list[tuple[int, ...]] = [()]
    for place in places:
        if place in parts[-1]:
            parts.append(())
        parts[-1] = (*parts[-1], place)
    return parts


def _guess_chunks(rows: int, conds: Sequence[Cond], options: dict[str, Any]) -> Chunks | None:
    groups, uuids = options["cond_or_uncond"], options["uuids"]
    if rows % len(groups) or len(groups) != len(uuids):
        return None
    found = [_find(conds, group, uuid) for group, uuid in zip(groups, uuids, strict=True)]
    known = tuple(number for number in found if number is not None)
    return Chunks(known, None) if len(known) == len(found) else None


def _find(conds: Sequence[Cond], group: int, uuid: Any) -> int | None:
    """Find the cond of a group, by its uuid if the group has several; None if not unique."""
    own = [number for number, cond in enumerate(conds) if cond.group == group]
    if len(own) > 1:
        own = [number for number in own if conds[number].uuid == uuid]
    return own[0] if len(own) == 1 else None


@dataclass(frozen=True)
class Window:
    """The part of the latents that a context window covers, along one of their dimensions."""

    dimension: int
    places: tuple[int, ...]
    total: int

    def measure(self, shape: Sequence[int]) -> tuple[int, int]:
        """Height and width of the whole latent; `shape` is that of the window, `(b, c, h, w)`."""
        whole = list(shape)
        whole[self.dimension] = self.total
        return whole[-2], whole[-1]


def read_window(options: dict[str, Any], shape: Sequence[int]) -> Window | None:
    """Return the host's context window; None if an evaluation of this `shape` is not one."""
    window = options.get("context_window")
    if window is None:
        return None
    anchor = getattr(window, "causal_anchor_index", None)
    before = [] if anchor is None or anchor < 0 else [anchor]
    places = (*before, *window.index_list)
    if len(places) != shape[window.dim]:
        return None
    return Window(window.dim, places, window.total_frames)

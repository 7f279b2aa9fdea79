"""What the rows of a forward are: names that travel with them through the host.

The host, and nodes that wrap the model, pass on, cut and repeat rows as they like. A tensor among
the conds that has a row for each of theirs is cut and repeated with them, so that each forward can
read what its rows are instead of guessing it from their number.
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
        group: index of its group in the evaluation, as `cond_or_uncond` says it.
        positive: whether the group is positive.
        uuid: the host's name; copies share it.
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
    """`(rows, 2)`: which cond a row is of, and its place in the evaluation's batch; on the CPU."""

    def process_cond(self, batch_size: int, *_: Any, **__: Any) -> _Names:
        return _Names(torch.stack([self.cond.expand(batch_size), torch.arange(batch_size)], dim=1))


def list_conds(groups: Sequence[Conds | None], positive: frozenset[int]) -> list[Cond]:
    """All conds of an evaluation, in the order of their names."""
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
    """Copies of the conds whose rows carry names."""
    numbers = count()

    def name(cond: dict[str, Any]) -> dict[str, Any]:
        names = _Names(torch.tensor([next(numbers)]))
        return {**cond, "model_conds": {**cond["model_conds"], NAME: names}}

    return [None if group is None else [name(cond) for cond in group] for group in groups]


def read_chunks(
    names: Tensor | None, rows: int, conds: Sequence[Cond], options: dict[str, Any]
) -> Chunks | None:
    """What the `rows` rows of a forward are; None if that cannot be known.

    A wrapper that does not hand the names on, or not with its rows, leaves the host's own notes:
    they are believed if they fit.
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
    """The rows of one cond, anew where one comes again: several tiles of it in one forward."""
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
    """The one cond of this group, or of this group and name."""
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
        """Height and width of the whole latent, of whose part `(b, c, h, w)` is the shape."""
        whole = list(shape)
        whole[self.dimension] = self.total
        return whole[-2], whole[-1]


def read_window(options: dict[str, Any], shape: Sequence[int]) -> Window | None:
    """The host's context window, if this evaluation's `shape` is one's."""
    window = options.get("context_window")
    if window is None:
        return None
    anchor = getattr(window, "causal_anchor_index", None)
    before = [] if anchor is None or anchor < 0 else [anchor]
    places = (*before, *window.index_list)
    if len(places) != shape[window.dim]:
        return None
    return Window(window.dim, places, window.total_frames)

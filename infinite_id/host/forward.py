"""One forward of the UNet: its rows, the people who act in it, and its text features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..attention.blocks import Block
from ..attention.mask import Area
from ..streams import Layout, Streams
from .archive import Record
from .keys import EVALUATION, KEY, RUN
from .people import Acting
from .rows import Chunks, Cond, read_chunks
from .run import Evaluation, Run
from .text_stream import Features, MissingError, Name, TextRows
from .tiles import find_areas

Options = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Forward:
    """What the hooks of one forward share.

    Attributes:
        acting: who acts at this noise level.
        given: the rows that the host calls with.
        layout: the rows that the UNet is run with. Text rows with the identity's latents may have
            been added. Text rows that equal another chunk's may have been left out.
        conds: for each cond chunk, what it is.
        first: the row of the evaluation's batch at which each chunk begins.
        latents: for each latent of a chunk, its place among the run's latents; None if unknown.
        x: the rows that the host calls with, `(rows, c, h, w)`.
        calls: for each cond chunk, the index of its cond and which forward of that cond it is.
        keeps: whether the text features of this forward are to be recalled later.
        patches: other nodes' patches by kind.
        context: the text tokens' shape, `(rows, tokens, width)`.
        called: the blocks whose cross-attention hook has been called.
        traces: which rows a cross-attention has that another node changed, by their count.
    """

    run: Run
    evaluation: Evaluation
    acting: Acting
    given: Layout
    layout: Layout
    conds: list[Cond]
    first: int
    latents: tuple[int, ...] | None
    x: Tensor
    calls: tuple[tuple[int, int], ...]
    keeps: bool
    patches: dict[str, list[Any]]
    context: Sequence[int]
    called: set[Block] = field(default_factory=set)
    traces: dict[int, list[int]] = field(default_factory=dict)

    @cached_property
    def areas(self) -> list[Area | None]:
        """For each chunk, the part of the evaluation's latent that it shows; None for all of it.

        Raises ValueError if another node cut it out, and it cannot be found.
        """
        known = [cond.area for cond in self.conds]
        if not self.evaluation.is_wrapped:
            return known
        firsts = self.x[:: len(self.x) // len(self.conds)]
        return find_areas(list(firsts), known, self.evaluation.x[self.first])

    @cached_property
    def names(self) -> tuple[Name, ...] | None:
        """The key of each chunk's features; None if it is unknown what a chunk shows."""
        try:
            areas = self.areas
        except ValueError:
            return None
        key = self.evaluation.key
        return tuple((key, *call, area) for call, area in zip(self.calls, areas, strict=True))

    @cached_property
    def features(self) -> Features | None:
        """The text features of this forward, if they are to be recalled later."""
        return None if self.names is None or not self.keeps else Features(self.names)

    @property
    def streams(self) -> Streams:
        return self.layout.streams

    @property
    def rows(self) -> int:
        """Rows that the UNet is run with."""
        texts = 1 if self.layout.has_one_text else self.layout.chunks * self.streams.has_text
        return self.layout.chunks * self.streams.identity + texts * self.streams.latents

    @property
    def adds_text(self) -> bool:
        """Whether text rows were added to the host's rows."""
        return self.layout.streams != self.given.streams

    @property
    def reads_text(self) -> bool:
        """Whether this forward's self-attention reads the text stream."""
        exists = self.streams.has_text or self.evaluation.text_rows is TextRows.RECALLED
        return exists and self.acting.reads_text

    def read_text(self, block: Block, k: Tensor, v: Tensor, k_id: Tensor) -> tuple[Tensor, Tensor]:
        """Return the text stream's keys and values, from this forward or an earlier one.

        Args:
            k, v: K_t and V_t of this forward, `(chunks or 1, 1, b, tokens, width)`, if it has
                text rows.
            k_id: K_id of this forward, `(chunks, people, b, tokens, width)`.

        Raises:
            MissingError: if they are to be recalled and were not kept.
        """
        memory, record = self.run.text.memory, self.evaluation.record
        if self.evaluation.text_rows is TextRows.RECALLED:
            if self.names is None:
                raise MissingError
            k, v = memory.recall(self.names, block, k_id)
            return k.to(k_id), v.to(k_id)
        if self.features is not None:
            memory.keep(self.features, block, k, v)
        if record is not None:
            self._record(record, block, k, v)
        return k, v

    def _record(self, record: Record, block: Block, k: Tensor, v: Tensor) -> None:
        if self.names is None:
            record.give_up()
        else:
            record.keep(tuple(tuple(part) for _, *part in self.names), block, k, v)


def begin(x: Tensor, names: Tensor | None, context: Tensor | None, options: Options) -> Forward:
    """Determine what a forward on `x` `(rows, c, h, w)` has to do.

    Args:
        names: say what its rows are, see `rows`; None if a node did not pass them on.
        context: the text tokens `(rows, tokens, width)`.

    Raises:
        RuntimeError: if its rows are not both streams of some conds.
    """
    run: Run = options[RUN]
    evaluation: Evaluation = options[EVALUATION]
    chunks = _need_chunks(x, names, run, evaluation, options)
    rows = len(x) // len(chunks.conds)
    streams = Streams(latents=rows, has_text=False) if run.is_single else evaluation.streams
    given = Layout(streams, len(chunks.conds))
    calls = tuple((cond, evaluation.calls[cond]) for cond in chunks.conds)
    evaluation.calls.update(chunks.conds)
    is_full = evaluation.step is None or evaluation.step.is_full
    keeps = is_full and evaluation.text_rows is TextRows.IN_BATCH and run.text.keeps
    return Forward(
        run=run,
        evaluation=evaluation,
        acting=evaluation.acting.on(x.device),
        given=given,
        layout=_choose_layout(given, evaluation, options),
        conds=[evaluation.conds[cond] for cond in chunks.conds],
        first=0 if chunks.places is None else chunks.places[0],
        latents=_place_latents(chunks, streams, run, evaluation),
        x=x,
        calls=calls,
        keeps=keeps,
        patches=options.get("patches", {}),
        context=() if context is None else context.shape,
    )


def _need_chunks(
    x: Tensor, names: Tensor | None, run: Run, evaluation: Evaluation, options: Options
) -> Chunks:
    chunks = read_chunks(names, len(x), evaluation.conds, options)
    if chunks is not None:
        expected = len(chunks.conds) * evaluation.streams.rows
        is_whole = chunks.places is None or chunks.places == tuple(range(evaluation.streams.rows))
        if run.is_single or (len(x) == expected and is_whole):
            return chunks
    raise RuntimeError(
        f"Infinite-ID: the model was called with {len(x)} rows that are not both streams of some "
        "prompts. A node that cuts the batch into pieces, such as a tiled sampler, is in the way: "
        "switch it off, or switch on shared_latents in Infinite-ID Save Time."
    )


def _place_latents(
    chunks: Chunks, streams: Streams, run: Run, evaluation: Evaluation
) -> tuple[int, ...] | None:
    """Which of the run's latents a chunk holds, in order; None if it is an unnamed piece."""
    if not run.is_single:
        return tuple(range(streams.latents))
    places = chunks.places
    if places is None:
        if streams.latents != evaluation.streams.rows:
            return None
        places = tuple(range(streams.latents))
    window = evaluation.window
    if window is not None and window.dimension == 0:
        return tuple(window.places[place] for place in places)
    return places if evaluation.streams.rows == run.streams.latents else None


def _choose_layout(given: Layout, evaluation: Evaluation, options: Options) -> Layout:
    """Return the layout to run: text rows are added if needed, and equal ones are merged."""
    streams = given.streams
    if evaluation.text_rows is TextRows.ADDED:
        streams = replace(streams, has_text=True)
    is_alike = evaluation.is_alike and given.chunks > 1 and not is_patched(options)
    return Layout(streams, given.chunks, has_one_text=streams.has_text and is_alike)


def is_patched(options: Options) -> bool:
    """True if another pack's patch or wrapper runs inside this forward.

    Such code expects every cond to have the same number of rows, so text rows must not be merged.
    The host's own code takes any rows. Wrappers around this forward see the rows of the call.
    """
    kinds = (WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
    wrappers = (options["wrappers"].get(kind, {}) for kind in kinds)
    foreign = [found for table in wrappers for key, found in table.items() if key != KEY]
    patches = [options.get(name, {}) for name in ("patches", "patches_replace")]
    return any(foreign) or any(any(table.values()) for table in patches)

"""One sampling run, and one evaluation of the conds in it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

from comfy.samplers import CFGGuider
from torch import Tensor

from ..noise import SharedNoise
from ..streams import Streams
from .agreement import Agreement
from .archive import Record
from .conds import Comparison
from .deep import DeepFeatures, Step
from .keys import TELL
from .people import Acting, Person
from .recollection import Recollection
from .rows import Cond, Window
from .text_stream import TextRows, TextStream

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Run:
    """One sampling run: its people, the rows of its batch, and its latent's height and width.

    If each latent is in the batch once, other nodes may cut the batch freely. That is so for one
    person without a text stream, or with shared latents: each forward then adds the text rows.

    Attributes:
        text_rows: where the identity stream finds the text stream while it runs.
        rows_stay: whether text rows run, too, where nobody reads them: another node needs the same
            rows in every forward.
        noise: None if there is only one stream.
        deep: the UNet's deep features; None if all of it runs at each noise level.
        agreement: leaves out the negative prompt; None if it is never left out.
        recollection: the text stream of earlier runs; None if it is not remembered.
        evaluations: the number of evaluations so far.
        has_acted: whether a person was to be drawn in one of them.
        is_drawn: whether some forward has called all our hooks.
    """

    guider: CFGGuider
    people: list[Person]
    streams: Streams
    text: TextStream
    latent: tuple[int, int]
    noise: SharedNoise | None
    text_rows: TextRows = TextRows.IN_BATCH
    rows_stay: bool = False
    deep: DeepFeatures | None = None
    agreement: Agreement | None = None
    recollection: Recollection | None = None
    comparison: Comparison = field(default_factory=Comparison)
    evaluations: int = 0
    has_acted: bool = False
    is_drawn: bool = False

    @property
    def is_single(self) -> bool:
        return self.streams.copies == 1

    @property
    def is_timed(self) -> bool:
        """Whether anything depends on the noise level: reading it makes a GPU wait."""
        has_spans = any(person.span is not None for person in self.people)
        may_skip = self.deep is not None or self.agreement is not None
        return self.text.is_timed or may_skip or has_spans

    @property
    def follows_course(self) -> bool:
        """Whether anything that is kept depends on the conds' course, see `read_course`."""
        keepers = (self.deep, self.agreement, self.recollection)
        return self.text.keeps or any(one is not None for one in keepers)

    def report(self) -> None:
        """Tell the user what was left out in this run."""
        kinds = (self.deep, self.agreement, self.recollection)
        described = [text for one in kinds if one is not None and (text := one.describe())]
        if described:
            text = "; ".join(described)
            log.info("Infinite-ID Save Time: %s.", text)
            self.guider.model_options["transformer_options"][TELL](text)

    def check_drawn(self) -> None:
        """Raise ValueError if people were to be drawn and no forward called our hooks."""
        if self.has_acted and not self.is_drawn:
            raise ValueError(
                "Infinite-ID: the model did not run while a person was to be drawn. Another node "
                "runs the model's layers itself, such as one of the DeepCache kind, or takes what "
                "an earlier step gave, such as a cache. Take that node out, or lower its "
                "threshold; Infinite-ID Save Time saves in its own way."
            )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation of the conds.

    Attributes:
        x: the sampler's batch, `(rows, c, h, w)`.
        conds: the conds that it evaluates.
        acting: who acts now.
        batch: the streams whose rows are in the sampler's batch.
        latent: height and width of the whole latent.
        window: the context window that the batch shows, if any.
        is_wrapped: whether another node is around the model.
        is_alike: whether all its conds are alike, and so their text rows.
        text_rows: where the identity stream's self-attention finds the text stream's.
        key: the key by which later evaluations find its text features.
        record: takes the text features, to be remembered in later runs; None if they are not.
        step: tells whether all of the UNet runs; None if it always does.
        course: the conds' hook strengths and acting controls, see `read_course`.
        calls: how many forwards each cond has had; a node may cut a cond's picture into several.
    """

    x: Tensor
    conds: list[Cond]
    acting: Acting
    batch: Streams
    latent: tuple[int, int]
    window: Window | None = None
    is_wrapped: bool = False
    is_alike: bool = False
    text_rows: TextRows = TextRows.IN_BATCH
    key: Hashable = None
    record: Record | None = None
    step: Step | None = None
    course: Hashable = None
    calls: Counter[int] = field(default_factory=Counter)

    @property
    def streams(self) -> Streams:
        """The streams whose rows are evaluated."""
        if self.text_rows is TextRows.IN_BATCH:
            return self.batch
        return self.batch.without_text()

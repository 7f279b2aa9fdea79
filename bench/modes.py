"""The modes that are measured, each against the plain model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..infinite_id.application import Application
from ..infinite_id.attention.mixed import Mixing, Style, needs_text_stream
from ..infinite_id.host.text_stream import TextRows
from ..infinite_id.identities.identity import Identity
from ..infinite_id.savings import Savings

NO_SAVINGS = Savings()
POSITIVE, NEGATIVE = 0, 1  # the host's names for the conds of a forward


class Evaluation(NamedTuple):
    """One forward: its conds, whether text rows are in it, what the text stream does, whether the
    conds are alike, and whether the UNet's outermost level runs alone."""

    conds: tuple[int, ...]
    has_text: bool
    text_rows: TextRows = TextRows.IN_BATCH
    is_alike: bool = False
    is_shallow: bool = False


@dataclass(frozen=True)
class Mode:
    """A setting of Apply, with or without savings; `people` is the length of a sweep.

    A text stream that is remembered was drawn before; what is counted is the next sampling.

    `is_alike` means that the positive and the negative prompt are the same. `target` is the most
    that a step of one picture may cost, in plain steps.
    """

    name: str
    mixing: Mixing = Mixing.MIXED
    style: Style = Style.PHOTO
    savings: Savings = NO_SAVINGS
    people: int = 1
    is_alike: bool = False
    target: float | None = None

    def apply_to(self, identity: Identity) -> Application:
        return Application(identity, mixing=self.mixing, style=self.style)


FAITHFUL = Mode("two streams, mixed attention", target=2.10)
ONLY = Mode("identity attention only", mixing=Mixing.OFF, target=1.03)
MODES = (
    ONLY,
    Mode("two streams, mutual attention", mixing=Mixing.MUTUAL),
    FAITHFUL,
    Mode("the same with AdaIN-mean", style=Style.ADAIN_MEAN, target=2.10),
    Mode("text stream every 2nd step", savings=Savings(every=2), target=1.60),
    Mode("sweep of 8, per picture", people=8, target=1.25),
    Mode("both prompts the same", is_alike=True),
)
STREAMS = MODES[:4]
SAVINGS = (
    Mode("deep features every 2nd step", savings=Savings(deep=2), target=1.20),
    Mode("deep features every 3rd step", savings=Savings(deep=3), target=0.80),
    Mode("deep features every 2nd step, text every 4th", savings=Savings(every=2, deep=2)),
    Mode("text stream remembered", savings=Savings(remember=8.0), target=1.14),
    Mode("text stream every 3rd step", savings=Savings(every=3)),
    Mode("text stream every 4th step", savings=Savings(every=4)),
    Mode("mixed attention in the first half", savings=Savings(until=0.5)),
    Mode("no text stream on negative rows", savings=Savings(guided=False)),
    Mode("shared latents", savings=Savings(shared=True)),
)


def list_evaluations(mode: Mode | None) -> dict[Evaluation, float]:
    """Return the forwards of a step at guidance above 1, with the mean number of each."""
    both = (NEGATIVE, POSITIVE)
    if mode is None:
        return {Evaluation(both, has_text=False): 1.0}
    deep = mode.savings.deep
    return {
        evaluation._replace(is_shallow=is_shallow): share * part
        for evaluation, share in _list_in_full(mode).items()
        for is_shallow, part in ((False, 1 / deep), (True, 1 - 1 / deep))
        if part
    }


def _list_in_full(mode: Mode) -> dict[Evaluation, float]:
    both = (NEGATIVE, POSITIVE)
    if not needs_text_stream(mode.mixing, mode.style):
        return {Evaluation(both, has_text=False): 1.0}
    savings = mode.savings
    if savings.shared:
        return {Evaluation(both, has_text=True, is_alike=mode.is_alike): 1.0}
    runs = 0.0 if savings.remember else savings.until / savings.every
    shares = {
        TextRows.IN_BATCH: runs,
        TextRows.RECALLED: savings.until - runs,
        TextRows.NONE: 1 - savings.until,
    }
    conds = both if savings.guided else (POSITIVE,)
    found = {
        Evaluation(conds, rows is TextRows.IN_BATCH, rows, mode.is_alike): share
        for rows, share in shares.items()
        if share
    }
    if not savings.guided:
        found[Evaluation((NEGATIVE,), False, TextRows.NONE)] = 1.0
    return found

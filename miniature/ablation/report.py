"""Writes the results to `docs/ablation.md`, with intervals, the paper's results and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...infinite_id.metrics.statistics import bootstrap
from ..training.judge import QUESTIONS
from ..world.scene import STYLES
from . import plots
from .curves import PLACES, Values
from .metrics import FOLLOWED, FOLLOWING, LIKENESS, Scores
from .pipeline import SAMPLER, Pixels
from .variants import (
    ADAIN,
    BOTH,
    FULL,
    MEAN,
    MUTUAL,
    PLAIN,
    TEXT,
    TWO_STREAMS,
    UNMIXED,
    Base,
    Outcome,
)

NOTES = Path(__file__).with_name("notes.md")
PAPER = {
    # M_FaceNet, CLIP-T
    TWO_STREAMS: (0.593, 0.329),
    UNMIXED: (0.700, 0.331),
    FULL: (0.689, 0.340),
    MUTUAL: (0.398, 0.316),
}


@dataclass(frozen=True, eq=False)
class Results:
    steps: int
    guidance: float
    guidances: dict[float, tuple[float, float]]  # likeness and following
    base: Base
    outcome: Outcome
    by_weight: dict[float, Scores]
    blends: dict[str, Values]  # (pairs, places, 2)
    halves: Values  # (pairs, halves, 2)
    side_by_side: list[Pixels]


@dataclass(frozen=True)
class Finding:
    """The paper's finding about one variant against another: the sign of the difference, or 0."""

    claim: str
    first: str
    second: str
    measure: str
    paper: str
    sign: int


FINDINGS = (
    Finding("training without text gains likeness", FULL, TWO_STREAMS, LIKENESS, "+.096", 1),
    Finding("... and following", FULL, TWO_STREAMS, FOLLOWING, "+.011", 1),
    Finding("mixed attention costs little likeness", FULL, UNMIXED, LIKENESS, "-.011", -1),
    Finding("... and gains following", FULL, UNMIXED, FOLLOWING, "+.009", 1),
    Finding("mutual attention loses likeness", MUTUAL, FULL, LIKENESS, "-.291", -1),
    Finding("... and following", MUTUAL, FULL, FOLLOWING, "-.024", -1),
    Finding("AdaIN-mean lets the style take", MEAN, PLAIN, "style", "yes", 1),
    Finding("full AdaIN loses likeness against AdaIN-mean", ADAIN, MEAN, LIKENESS, "yes", -1),
)


def means(scores: Scores, measure: str) -> NDArray[np.float64]:
    """Return each person's mean over the prompts that ask for the measure."""
    return np.nanmean(scores[measure], axis=1)


def interval(values: NDArray[np.float64], signed: bool = False) -> str:
    """Return the mean's 95 % interval, bootstrapped over people."""
    return bootstrap(values).describe(signed)


def write(path: Path, results: Results) -> None:
    """Write the report, and its pictures in a folder of the same name beside it."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    plots.draw_base(folder / "base.jpg", results.base.shown)
    plots.draw_sheet(folder / "ways.jpg", results.outcome.sheet)
    plots.draw_rows(folder / "masks.jpg", results.side_by_side[:4])
    plots.plot_weights(folder / "weight.svg", results.by_weight)
    plots.plot_blends(folder / "mixing.svg", results.blends)
    people = len(results.outcome.ceiling[LIKENESS])
    sections = [
        "# The paper's ablations, on the miniature",
        f"Made by `python -m miniature.ablation --host PATH`: {people} people and scenes "
        f"that no net was trained on, the same prompts and noise for every way, {SAMPLER}, "
        f"{results.steps} steps, guidance {results.guidance:g}, chosen on other people by likeness "
        f"plus following of *{FULL}*: {_list_guidances(results.guidances)}. *Likeness* is the "
        "cosine to the person by a face net that took no part in training; *following* the share "
        "of place, clothes, colour and expression that another such net finds as asked. Means "
        "with 95 % intervals, bootstrapped over people; differences are paired.",
        "## The base model",
        _base(results.base),
        f"![Pictures by the text alone]({folder.name}/base.jpg)",
        "## Ways to draw a person",
        _ways(results.outcome, people),
        _say_how_far(results.outcome),
        "The parts of the prompt, as far as they are followed:",
        _parts(results.outcome),
        f"![Rows: people. Columns: the photo, and each way]({folder.name}/ways.jpg)",
        "## Styles",
        _styles(results.outcome),
        "## The paper's findings, and ours",
        _findings(results.outcome),
        "## Weight",
        _weights(results.by_weight),
        f"![Likeness and following by weight]({folder.name}/weight.svg)",
        "## Mixing two people",
        _blends(results.blends),
        f"![Likeness to either person by the mix]({folder.name}/mixing.svg)",
        "## Two people with masks",
        _masks(results.halves),
        f"![Each picture between the photos of its two people]({folder.name}/masks.jpg)",
        NOTES.read_text(encoding="utf-8").rstrip(),
    ]
    partial = path.with_suffix(".partial")
    partial.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    partial.replace(path)


def _list_guidances(guidances: Mapping[float, tuple[float, float]]) -> str:
    return ", ".join(
        f"{cfg:g} gives {likeness:.3f} and {following:.3f}"
        for cfg, (likeness, following) in guidances.items()
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _base(base: Base) -> str:
    rows = [
        [name, *(interval(s[name][~np.isnan(s[name])]) for s in (base.scores, base.ceiling))]
        for name in QUESTIONS
    ]
    both = (base.scores, base.ceiling)
    rows.append(["mean", *(f"{np.mean([np.nanmean(s[q]) for q in QUESTIONS]):.3f}" for s in both)])
    head = [
        "recognised as asked",
        f"{len(base.scores[FOLLOWING])} pictures by the text alone",
        "the same scenes, drawn",
    ]
    return _table(head, rows)


def _ways(outcome: Outcome, people: int) -> str:
    head = [f"{people} people", LIKENESS, f"against *{FULL}*", FOLLOWING, f"against *{FULL}*"]
    head += ["paper: M_FaceNet", "paper: CLIP-T"]
    rows = []
    for name, scores in outcome.photos.items():
        cells = [name]
        for measure in (LIKENESS, FOLLOWING):
            own = means(scores, measure)
            against = own - means(outcome.photos[FULL], measure)
            cells += [interval(own), "" if name == FULL else interval(against, signed=True)]
        rows.append([*cells, *(f"{value:.3f}" for value in PAPER.get(name, ()))])
        rows[-1] += [""] * (len(head) - len(rows[-1]))
    best = [interval(means(outcome.ceiling, measure)) for measure in (LIKENESS, FOLLOWING)]
    rows.append(["drawn pictures", best[0], "", best[1], "", "", ""])
    return _table(head, rows)


def _parts(outcome: Outcome) -> str:
    ways = outcome.photos | {"drawn pictures": outcome.ceiling}
    rows = [
        [name, *(interval(means(scores, part)) for part in FOLLOWED)]
        for name, scores in ways.items()
    ]
    return _table(["", *FOLLOWED], rows)


def _say_how_far(outcome: Outcome) -> str:
    floor, full, ceiling = (
        means(scores, LIKENESS).mean()
        for scores in (outcome.photos[TEXT], outcome.photos[FULL], outcome.ceiling)
    )
    gained = means(outcome.photos[FULL], FOLLOWING) - means(outcome.photos[TEXT], FOLLOWING)
    points = 100 * gained.mean()
    return (
        "Drawn pictures of the same people and scenes are the ceiling, text alone is the floor: "
        f"full Infinite-ID goes {(full - floor) / (ceiling - floor):.0%} of the way in likeness, "
        f"and follows the prompt {abs(points):.1f} points {'more' if points > 0 else 'less'} than "
        "text alone."
    )


def _styles(outcome: Outcome) -> str:
    measures = ("style", LIKENESS, FOLLOWING)
    rows = [
        [name, *(interval(means(scores, measure)) for measure in measures)]
        for name, scores in outcome.styles.items()
    ]
    head = [", ".join(list(STYLES)[1:]), "style as asked", LIKENESS, FOLLOWING]
    also = means(outcome.styles[BOTH], "style") - means(outcome.styles[MEAN], "style")
    lost = means(outcome.styles[BOTH], LIKENESS) - means(outcome.styles[MEAN], LIKENESS)
    return _table(head, rows) + (
        "\n\nWhether AdaIN-mean belongs in cross-attention as well is an open point: there it "
        f"changes the style by {interval(also, signed=True)} and likeness by "
        f"{interval(lost, signed=True)}."
    )


def _findings(outcome: Outcome) -> str:
    both: Mapping[str, Scores] = outcome.photos | outcome.styles
    rows = []
    for finding in FINDINGS:
        ways = (both[way] for way in (finding.first, finding.second))
        first, second = (means(scores, finding.measure) for scores in ways)
        here = bootstrap(first - second)
        seen = 1 if here.low > 0 else -1 if here.high < 0 else 0
        verdict = {finding.sign: "the same", 0: "undecided"}.get(seen, "the opposite")
        rows.append([finding.claim, finding.paper, here.describe(signed=True), verdict])
    return _table(["finding", "paper", "here, paired", ""], rows)


def _weights(by_weight: Mapping[float, Scores]) -> str:
    rows = [
        [f"{weight:g}", *(interval(means(scores, m)) for m in (LIKENESS, FOLLOWING))]
        for weight, scores in by_weight.items()
    ]
    return _table(["weight", LIKENESS, FOLLOWING], rows)


def _blends(blends: Mapping[str, Values]) -> str:
    head = ["likeness to", *(f"{place:.0%} of the second" for place in PLACES)]
    rows = [
        [f"{person}, {name}", *(interval(curves[:, i, which]) for i in range(len(PLACES)))]
        for name, curves in blends.items()
        for which, person in enumerate(("the first", "the second"))
    ]
    return _table(head, rows)


def _masks(halves: Values) -> str:
    rows = [
        [half, *(interval(halves[:, row, which]) for which in (0, 1))]
        for row, half in enumerate(("left half", "right half"))
    ]
    right = (halves.argmax(2) == np.arange(2)).mean()
    return _table(["likeness to", "the left person", "the right person"], rows) + (
        f"\n\nOf {halves.shape[0] * 2} halves, {right:.0%} resemble their own person more than "
        "the other one. Both people are of the prompt's one noun, and no net was trained on a "
        "canvas of this width."
    )

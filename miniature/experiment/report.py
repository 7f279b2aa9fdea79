"""The trial's results as `docs/ablation.md`, with intervals, beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from infinite_id.sheet import draw_sheet

from ..faces import write_png
from ..world.scene import STYLES
from .trial import FULL, LIKENESS, ON_PHOTOS, ON_STYLES, PLACES, Results, Scores

RESAMPLES = 2000
FOLLOWED = ("place", "garment", "colour", "expression")
PAPER = {
    # CLIP-T, M_FaceNet
    "trained with text, two streams": (0.329, 0.593),
    "without mixed attention": (0.331, 0.700),
    FULL: (0.340, 0.689),
    "mutual instead of mixed": (0.316, 0.398),
}
Values = NDArray[np.float64]
Measure = Callable[[Scores], Values]


def likeness(scores: Scores) -> Values:
    """A number for each person."""
    return scores[LIKENESS].mean(1)


def following(scores: Scores) -> Values:
    """The share of what was asked for that is in the picture, for each person."""
    return np.nanmean(np.stack([scores[question] for question in FOLLOWED]), axis=(0, 2))


def one(question: str) -> Measure:
    return lambda scores: np.nanmean(scores[question], axis=1)


def interval(values: Values) -> str:
    """The mean and its 95 % interval, bootstrapped over people."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def write(path: Path, results: Results, minutes: float) -> None:
    """The report, and `ablation.png` beside it."""
    people = len(results.ceiling[LIKENESS])
    sheet = path.with_name("ablation.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_sheet(sheet, results)
    sections = [
        "# The paper's ablations, on the miniature",
        f"`python -m miniature.ablation` made this: {people} people whom no net has seen, the same "
        "prompts and noise for every way, DDIM, 30 steps, guidance 5. *Likeness* is the cosine to "
        "the person by a face net that took no part in training; *following* the share of place, "
        "clothes, colour and expression that a net finds as asked. Means with 95 % intervals, "
        "bootstrapped over people.",
        f"![Rows: people. Columns: the photo, and each way]({sheet.name})",
        "## Photos",
        _table(results.photos, results.ceiling, FULL, PAPER),
        "Drawn pictures of the same people and scenes are the ceiling, text alone is the floor. "
        + _say_how_far(results),
        "## Styles",
        _style_table(results),
        "## Weight",
        _weights(results),
        "## Mixing",
        _blends(results),
    ]
    print(f"{people} people, {minutes:.1f} minutes")
    partial = path.with_suffix(".partial")
    partial.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    partial.replace(path)


def _table(
    ways: Mapping[str, Scores],
    ceiling: Scores,
    against: str,
    paper: Mapping[str, tuple[float, float]],
) -> str:
    rows = [
        f"| way | likeness | likeness against *{against}* | following | following against "
        f"*{against}* | paper: M_FaceNet | paper: CLIP-T |",
        "|---|---|---|---|---|---|---|",
    ]
    reference = ways[against]
    for name, scores in ways.items():
        clip_t, face = paper.get(name, (None, None))
        cells = [
            interval(likeness(scores)),
            interval(likeness(scores) - likeness(reference)) if name != against else "",
            interval(following(scores)),
            interval(following(scores) - following(reference)) if name != against else "",
            f"{face:.3f}" if face else "",
            f"{clip_t:.3f}" if clip_t else "",
        ]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    both = interval(likeness(ceiling)), interval(following(ceiling))
    rows.append(f"| drawn pictures | {both[0]} | | {both[1]} | | | |")
    return "\n".join(rows)


def _say_how_far(results: Results) -> str:
    floor, full, ceiling = (
        likeness(scores).mean()
        for scores in (results.photos["text only"], results.photos[FULL], results.ceiling)
    )
    share = (full - floor) / (ceiling - floor)
    lost = following(results.photos["text only"]).mean() - following(results.photos[FULL]).mean()
    return (
        f"Full Infinite-ID goes {share:.0%} of the way in likeness, and follows the prompt "
        f"{abs(lost) * 100:.1f} points {'less' if lost > 0 else 'more'} than text alone."
    )


def _style_table(results: Results) -> str:
    rows = ["| way | style as asked | likeness | following |", "|---|---|---|---|"]
    for name in ON_STYLES:
        scores = results.styles[name]
        cells = [interval(m(scores)) for m in (one("style"), likeness, following)]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    gain = one("style")(results.styles["AdaIN-mean"]) - one("style")(
        results.styles["without AdaIN"]
    )
    loss = likeness(results.styles["full AdaIN"]) - likeness(results.styles["AdaIN-mean"])
    return "\n".join(rows) + (
        f"\n\nPaired: AdaIN-mean against none, style {interval(gain)}; full AdaIN against "
        f"AdaIN-mean, likeness {interval(loss)}. Styles: {', '.join(list(STYLES)[1:])}."
    )


def _weights(results: Results) -> str:
    rows = ["| weight | likeness | following |", "|---|---|---|"]
    for weight, scores in results.by_weight.items():
        rows.append(f"| {weight} | {interval(likeness(scores))} | {interval(following(scores))} |")
    return "\n".join(rows)


def _blends(results: Results) -> str:
    head = " | ".join(f"{place:.0%} of the second" for place in PLACES)
    rows = [f"| way, likeness to | {head} |", "|---|" + "---|" * len(PLACES)]
    for name, curves in results.blends.items():
        for which, person in enumerate(("the first", "the second")):
            cells = " | ".join(interval(curves[:, i, which]) for i in range(len(PLACES)))
            rows.append(f"| {name}, {person} | {cells} |")
    return "\n".join(rows)


def _write_sheet(path: Path, results: Results) -> None:
    columns = ["photo", *ON_PHOTOS, *(f"style: {name}" for name in ON_STYLES)]
    batches = [torch.from_numpy(np.stack(shown)).float() / 255 for _, shown in results.sheet]
    prompts = [prompt for prompt, _ in results.sheet]
    sheet = draw_sheet(
        batches, columns, prompts, "", columns=len(columns), cell_size=0, gap=4, margin=8
    )
    write_png(path, (sheet[0] * 255).round().byte().numpy())

"""The report's pictures: contact sheets and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ...infinite_id import sheet
from .curves import PLACES, Values
from .metrics import FOLLOWING, LIKENESS, Scores
from .pipeline import Pixels
from .variants import ON_PHOTOS, ON_STYLES

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "", "font.size": 9})  # the same file every time
ACROSS = 12


def draw_base(path: Path, pictures: Pixels) -> None:
    """Draw pictures `(n, 128, 128, 3)` in rows of twelve."""
    draw_rows(path, [np.hstack(list(row)) for row in np.split(pictures, len(pictures) // ACROSS)])


def draw_rows(path: Path, rows: Sequence[Pixels]) -> None:
    _save(path, np.vstack(list(rows)))


def draw_sheet(path: Path, rows: Sequence[tuple[str, Sequence[Pixels]]]) -> None:
    """Draw a row for each prompt: the photo, then the picture of each variant."""
    labels = ["photo", *ON_PHOTOS, *(f"style: {name}" for name in ON_STYLES)]
    batches = [torch.from_numpy(np.stack(list(shown))).float() / 255 for _, shown in rows]
    drawn = sheet.draw_sheet(
        batches,
        labels,
        [prompt for prompt, _ in rows],
        "",
        columns=len(labels),
        cell_size=0,
        gap=4,
        margin=8,
    )
    _save(path, (drawn[0] * 255).round().byte().numpy())


def plot_weights(path: Path, by_weight: Mapping[float, Scores]) -> None:
    figure, axes = _begin("weight")
    for measure in (LIKENESS, FOLLOWING):
        values = [scores[measure].ravel() for scores in by_weight.values()]
        _band(axes, list(by_weight), values, measure)
    _finish(figure, axes, path)


def plot_blends(path: Path, blends: Mapping[str, Values]) -> None:
    figure, axes = _begin("share of the second person")
    for name, curves in blends.items():
        for which, person in enumerate(("the first", "the second")):
            values = [curves[:, i, which] for i in range(len(PLACES))]
            _band(axes, PLACES, values, f"{name}: likeness to {person}")
    _finish(figure, axes, path)


def _begin(label: str) -> tuple[Figure, pyplot.Axes]:
    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    axes.set_xlabel(label)
    return figure, axes


def _band(
    axes: pyplot.Axes, places: Sequence[float], values: Sequence[NDArray[np.float64]], label: str
) -> None:
    """Plot the mean with its standard error."""
    mean = np.array([v.mean() for v in values])
    error = np.array([v.std() / np.sqrt(len(v)) for v in values])
    (line,) = axes.plot(places, mean, marker="o", markersize=3, label=label)
    axes.fill_between(places, mean - error, mean + error, color=line.get_color(), alpha=0.2)


def _finish(figure: Figure, axes: pyplot.Axes, path: Path) -> None:
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _save(path: Path, pixels: Pixels) -> None:
    Image.fromarray(pixels).save(path, quality=88)

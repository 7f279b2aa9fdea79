"""What a face net's numbers mean: similarities within and between people, and thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from ..errors import UserError
from .faces import FaceNet
from .features import Nets, Store, look
from .scores import Measure, Scores, same_and_different
from .statistics import area, threshold

RATES = (0.01, 0.001)
"""Rates of false accepts."""


@dataclass(frozen=True, eq=False)
class Distribution:
    """One net's similarities of all pairs of photos.

    Attributes:
        same: similarities of pairs of one person; different: of pairs of two people. The order of
            the pairs is the same for all nets.
    """

    net: FaceNet
    same: Scores
    different: Scores

    @property
    def thresholds(self) -> list[float]:
        """The threshold at each of `RATES`."""
        return [threshold(self.different, rate) for rate in RATES]


@dataclass(frozen=True)
class Calibration:
    """Several nets on the same photos.

    Attributes:
        photos: how many have a face that all nets found; people: how many they show.
        problems: each photo that is left out, and why.
    """

    distributions: Sequence[Distribution]
    photos: int
    people: int
    problems: Sequence[str]


def calibrate(
    photos: Sequence[tuple[str, Path]], nets: Sequence[FaceNet], store: Store
) -> Calibration:
    """Compare all pairs of photos.

    Args:
        photos: whom each shows, and its file.

    Raises:
        UserError: if fewer than two people are left, or none with two photos.
    """
    seen = look([path for _, path in photos], Nets(nets), store)
    problems = [f"{path}: {reason}" for path, reason in seen.problems.items()]
    people: list[str] = []
    vectors = []
    for person, path in photos:
        if path not in seen.contents:
            continue
        found = [store.get(net.digest, seen.contents[path]) for net in nets]
        own = [vector for vector in found if vector is not None]
        if len(own) == len(nets):
            people.append(person)
            vectors.append(own)
        else:
            problems.append(f"{path}: no face was found")
    if len(set(people)) < 2 or len(set(people)) == len(people):
        raise UserError(
            f"{len(people)} photos of {len(set(people))} people are left. A calibration needs two "
            "people, and two photos of one."
        )
    distributions = [
        Distribution(
            net, *same_and_different(np.stack([own[n] for own in vectors]), people, net.measure)
        )
        for n, net in enumerate(nets)
    ]
    return Calibration(distributions, len(people), len(set(people)), problems)


def describe(calibration: Calibration) -> str:
    """Markdown: a table with a column for each net, and their correlations."""
    shown = calibration.distributions
    one = shown[0]
    rows = [
        ["", *(d.net.name for d in shown)],
        ["---", *("---" for _ in shown)],
        [
            "similarity",
            *("cosine" if d.net.measure is Measure.COSINE else "1 - distance" for d in shown),
        ],
        ["licence", *(d.net.licence for d in shown)],
        ["one person", *(_spread(d.same) for d in shown)],
        ["two people", *(_spread(d.different) for d in shown)],
        ["least alike of one person", *(f"{d.same.min():.3f}" for d in shown)],
        ["most alike of two people", *(f"{d.different.max():.3f}" for d in shown)],
        ["area under the ROC curve", *(f"{area(d.same, d.different):.5f}" for d in shown)],
    ]
    for n, rate in enumerate(RATES):
        name = f"threshold at {100 * rate:g} % false accepts"
        if rate * len(one.different) < 1:  # the threshold would only be the most similar pair's
            rows.append([name, *("too few pairs" for _ in shown)])
            continue
        rows.append([name, *(f"{d.thresholds[n]:.3f}" for d in shown)])
        accepted = (f"{(d.same >= d.thresholds[n]).mean():.2%}" for d in shown)
        rows.append(["... one person is accepted", *accepted])
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    facts = [
        f"{calibration.photos} photos of {calibration.people} people: {len(one.same)} pairs of one "
        f"person, {len(one.different)} of two. {len(calibration.problems)} photos are left out.",
        table,
    ]
    facts += [
        f"Correlation of {a.net.name} and {b.net.name}: {_correlate(a, b)}."
        for a, b in combinations(shown, 2)
    ]
    return "\n\n".join(facts)


def _spread(values: Scores) -> str:
    return f"{values.mean():.3f} +- {values.std():.3f}"


def _correlate(a: Distribution, b: Distribution) -> str:
    pairs = {
        "over all pairs": [np.concatenate([d.same, d.different]) for d in (a, b)],
        "over pairs of one person": [a.same, b.same],
        "over pairs of two": [a.different, b.different],
    }
    return ", ".join(f"{_correlate_values(x, y)} {name}" for name, (x, y) in pairs.items())


def _correlate_values(x: Scores, y: Scores) -> str:
    """Return the correlation as text. With fewer than three pairs it says nothing."""
    return f"{np.corrcoef(x, y)[0, 1]:.3f}" if len(x) > 2 else "unknown"

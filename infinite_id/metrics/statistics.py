"""Means with intervals over people, thresholds, and how well scores tell people apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

RESAMPLES = 2000
FEWEST_PEOPLE = 10
"""For fewer people a bootstrap interval is too narrow: it covers well below its 95 %."""


@dataclass(frozen=True)
class Interval:
    """A mean over people, and the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float

    def describe(self, signed: bool = False) -> str:
        """Such as '0.512 [0.480, 0.541]'."""
        form = "+.3f" if signed else ".3f"
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


def bootstrap(values: Values) -> Interval:
    """Return the mean and its percentile bootstrap interval (Efron, 1979), from a fixed seed.

    A difference of methods is paired if its values are differences: `bootstrap(a - b)`.

    Args:
        values: `(people,)`, a mean over each person's pictures.
    """
    rng = np.random.default_rng(0)
    resampled = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(float(values.mean()), float(low), float(high))


def threshold(different: Values, rate: float) -> float:
    """The lowest score at which at most `rate` of the pairs of two people pass for one person.

    Args:
        different: similarities of pairs of different people, `(n,)`.
        rate: of false accepts, 0..1.
    """
    falling = np.sort(different)[::-1]
    accepted = int(rate * len(falling))
    return float(np.nextafter(falling[accepted], np.inf))


def area(same: Values, different: Values) -> float:
    """The area under the ROC curve: how often a pair of one person beats a pair of two, 0..1."""
    ranked = np.sort(different)
    below, up_to = (np.searchsorted(ranked, same, side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(ranked))

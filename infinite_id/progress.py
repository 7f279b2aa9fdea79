"""Bars with the rate and the time left."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def make_bar(total: int, what: str, unit: str, initial: int = 0) -> Any:
    """A bar on stderr; in a log file, a line each ten seconds.

    Args:
        what: names the work that the bar shows.
        initial: how much was done before. It counts for neither the rate nor the time left.
    """
    shown = sys.stderr.isatty()
    return tqdm(
        total=total, desc=what, unit=unit, initial=initial, mininterval=0.2 if shown else 10.0
    )

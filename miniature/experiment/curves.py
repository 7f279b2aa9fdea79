"""Likeness along a weight, along a mix of two people, and side by side under masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from infinite_id import mixing
from infinite_id.application import Application

from ..training.publish import OWN
from . import cast
from .jury import Jury, Scores
from .studio import SIDE, Pixels, Studio
from .trial import stack

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
METHODS = {"interpolation": mixing.interpolate, "stack": mixing.cross_fade}
Values = NDArray[np.float64]


def by_weight(studio: Studio, jury: Jury, people: Sequence[int], cfg: float) -> dict[float, Scores]:
    """Scores `(people, prompts)` at each weight."""
    rows: dict[float, list[Scores]] = {weight: [] for weight in WEIGHTS}
    for number in people:
        person, scenes = jury.portray(number), cast.photos(number)[:2]
        prompts = [cast.prompt(number, scene) for scene in scenes]
        identity = studio.encode(cast.photo(number), OWN)
        for weight in WEIGHTS:
            application = Application(identity, weight=weight)
            pictures = studio.draw(prompts, [application], seed=number, cfg=cfg)
            rows[weight].append(jury.judge(pictures, scenes, person))
    return {weight: stack(scores) for weight, scores in rows.items()}


def blend(studio: Studio, jury: Jury, pairs: Sequence[cast.Pair], cfg: float) -> dict[str, Values]:
    """Likeness `(pairs, places, 2)` to either person on the way from one to the other."""
    found: dict[str, list[Values]] = {name: [] for name in METHODS}
    for pair in pairs:
        ends = [studio.encode(cast.photo(number), OWN) for number in pair]
        people = [jury.portray(number) for number in pair]
        prompt = cast.prompt(pair[0], cast.photos(pair[0])[0])
        for name, method in METHODS.items():
            application = Application(method(ends, PLACES))
            row = studio.draw([prompt], [application], seed=pair[0], cfg=cfg)
            both = [jury.resembles(row, person) for person in people]
            found[name].append(np.stack(both, axis=1))
    return {name: np.stack(rows) for name, rows in found.items()}


def side_by_side(
    studio: Studio, jury: Jury, pairs: Sequence[cast.Pair], cfg: float
) -> tuple[Values, list[Pixels]]:
    """Two people under masks on a canvas of two squares: likeness `(pairs, halves, 2)`."""
    left = torch.zeros(1, SIDE, 2 * SIDE)
    left[..., :SIDE] = 1
    found, shown = [], []
    for pair in pairs:
        applications = [
            Application(studio.encode(cast.photo(number), OWN), mask=mask)
            for number, mask in zip(pair, (left, 1 - left), strict=True)
        ]
        prompt = cast.prompt(pair[0], cast.photos(pair[0])[0])
        picture = studio.draw([prompt], applications, seed=pair[0], cfg=cfg, across=2)[0]
        halves = np.stack(np.split(picture, 2, axis=1))
        both = [jury.resembles(halves, jury.portray(number)) for number in pair]
        found.append(np.stack(both, axis=1))
        shown.append(np.hstack([cast.photo(pair[0]), picture, cast.photo(pair[1])]))
    return np.stack(found), shown

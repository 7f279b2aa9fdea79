"""Likeness along a weight, along a mix of two people, and side by side under masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ...infinite_id.application import Application
from ...infinite_id.identities import mixing
from ...infinite_id.identities.identity import Identity
from ..training.publish import OWN
from . import cast
from .crew import Crew
from .jury import Jury, Scores
from .studio import SIDE, Pixels, Studio
from .trial import stack

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
Mix = Callable[[Sequence[Identity], Sequence[float]], Identity]
METHODS: dict[str, Mix] = {"interpolation": mixing.interpolate, "stack": mixing.cross_fade}
Values = NDArray[np.float64]


def by_weight(crew: Crew, people: Sequence[int], cfg: float) -> dict[float, Scores]:
    """Scores `(people, prompts)` at each weight."""
    rows = crew.map("weights", partial(_try_weights, cfg=cfg), people)
    return {weight: stack([row[weight] for row in rows]) for weight in WEIGHTS}


def _try_weights(studio: Studio, jury: Jury, number: int, cfg: float) -> dict[float, Scores]:
    person, scenes = jury.portray(number), cast.photos(number)[:2]
    prompts = [cast.prompt(number, scene) for scene in scenes]
    identity = studio.encode(cast.photo(number), OWN)

    def judge(weight: float) -> Scores:
        application = Application(identity, weight=weight)
        return jury.judge(studio.draw(prompts, [application], number, cfg), scenes, person)

    return {weight: judge(weight) for weight in WEIGHTS}


def blend(crew: Crew, pairs: Sequence[cast.Pair], cfg: float) -> dict[str, Values]:
    """Likeness `(pairs, places, 2)` to either person on the way from one to the other."""
    rows = crew.map("mixing", partial(_blend_two, cfg=cfg), pairs)
    return {name: np.stack([row[name] for row in rows]) for name in METHODS}


def _blend_two(studio: Studio, jury: Jury, pair: cast.Pair, cfg: float) -> dict[str, Values]:
    ends = [studio.encode(cast.photo(number), OWN) for number in pair]
    people = [jury.portray(number) for number in pair]
    prompt = cast.prompt(pair[0], cast.photos(pair[0])[0])

    def judge(mix: Mix) -> Values:
        row = studio.draw([prompt], [Application(mix(ends, PLACES))], seed=pair[0], cfg=cfg)
        return np.stack([jury.resembles(row, person) for person in people], axis=1)

    return {name: judge(mix) for name, mix in METHODS.items()}


def side_by_side(crew: Crew, pairs: Sequence[cast.Pair], cfg: float) -> tuple[Values, list[Pixels]]:
    """Two people under masks on a canvas of two squares: likeness `(pairs, halves, 2)`."""
    done = crew.map("masks", partial(_draw_two, cfg=cfg), pairs)
    return np.stack([values for values, _ in done]), [shown for _, shown in done]


def _draw_two(studio: Studio, jury: Jury, pair: cast.Pair, cfg: float) -> tuple[Values, Pixels]:
    left = torch.zeros(1, SIDE, 2 * SIDE)
    left[..., :SIDE] = 1
    applications = [
        Application(studio.encode(cast.photo(number), OWN), mask=mask)
        for number, mask in zip(pair, (left, 1 - left), strict=True)
    ]
    prompt = cast.prompt(pair[0], cast.photos(pair[0])[0])
    picture = studio.draw([prompt], applications, seed=pair[0], cfg=cfg, across=2)[0]
    halves = np.stack(np.split(picture, 2, axis=1))
    values = np.stack([jury.resembles(halves, jury.portray(number)) for number in pair], axis=1)
    return values, np.hstack([cast.photo(pair[0]), picture, cast.photo(pair[1])])

"""Likeness against the weight, against the mix of two people, and of two people under masks."""

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
from . import split
from .metrics import Metrics, Scores
from .pipeline import SIDE, Pipeline, Pixels
from .pool import Pool
from .variants import stack

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
Mix = Callable[[Sequence[Identity], Sequence[float]], Identity]
METHODS: dict[str, Mix] = {"interpolation": mixing.interpolate, "stack": mixing.cross_fade}
Values = NDArray[np.float64]


def by_weight(pool: Pool, people: Sequence[int], cfg: float) -> dict[float, Scores]:
    """Return scores `(people, prompts)` at each weight."""
    rows = pool.map("weights", partial(_score_weights, cfg=cfg), people)
    return {weight: stack([row[weight] for row in rows]) for weight in WEIGHTS}


def _score_weights(
    pipeline: Pipeline, metrics: Metrics, number: int, cfg: float
) -> dict[float, Scores]:
    person, scenes = metrics.embed_person(number), split.photos(number)[:2]
    prompts = [split.prompt(number, scene) for scene in scenes]
    identity = pipeline.encode(split.photo(number), OWN)

    def score(weight: float) -> Scores:
        application = Application(identity, weight=weight)
        return metrics.score(pipeline.draw(prompts, [application], number, cfg), scenes, person)

    return {weight: score(weight) for weight in WEIGHTS}


def blend(pool: Pool, pairs: Sequence[split.Pair], cfg: float) -> dict[str, Values]:
    """Return likeness `(pairs, places, 2)` to both people on the way from one to the other."""
    rows = pool.map("mixing", partial(_blend_two, cfg=cfg), pairs)
    return {name: np.stack([row[name] for row in rows]) for name in METHODS}


def _blend_two(
    pipeline: Pipeline, metrics: Metrics, pair: split.Pair, cfg: float
) -> dict[str, Values]:
    ends = [pipeline.encode(split.photo(number), OWN) for number in pair]
    people = [metrics.embed_person(number) for number in pair]
    prompt = split.prompt(pair[0], split.photos(pair[0])[0])

    def score(mix: Mix) -> Values:
        row = pipeline.draw([prompt], [Application(mix(ends, PLACES))], seed=pair[0], cfg=cfg)
        return np.stack([metrics.resembles(row, person) for person in people], axis=1)

    return {name: score(mix) for name, mix in METHODS.items()}


def side_by_side(
    pool: Pool, pairs: Sequence[split.Pair], cfg: float
) -> tuple[Values, list[Pixels]]:
    """Draw two people under masks on two squares; return likeness `(pairs, halves, 2)`."""
    done = pool.map("masks", partial(_draw_two, cfg=cfg), pairs)
    return np.stack([values for values, _ in done]), [shown for _, shown in done]


def _draw_two(
    pipeline: Pipeline, metrics: Metrics, pair: split.Pair, cfg: float
) -> tuple[Values, Pixels]:
    left = torch.zeros(1, SIDE, 2 * SIDE)
    left[..., :SIDE] = 1
    applications = [
        Application(pipeline.encode(split.photo(number), OWN), mask=mask)
        for number, mask in zip(pair, (left, 1 - left), strict=True)
    ]
    prompt = split.prompt(pair[0], split.photos(pair[0])[0])
    picture = pipeline.draw([prompt], applications, seed=pair[0], cfg=cfg, across=2)[0]
    halves = np.stack(np.split(picture, 2, axis=1))
    values = np.stack(
        [metrics.resembles(halves, metrics.embed_person(number)) for number in pair], axis=1
    )
    return values, np.hstack([split.photo(pair[0]), picture, split.photo(pair[1])])

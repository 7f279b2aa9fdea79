"""The test: variants x held-out people x prompts, drawn and scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...infinite_id.application import Application
from ...infinite_id.attention.mixed import Mixing, Style
from ...infinite_id.identities.identity import Identity
from ..training.publish import OWN, WITH_TEXT
from ..world.scene import Scene
from . import split
from .files import Row, keep_photos, keep_pictures, write_table
from .metrics import FOLLOWING, LIKENESS, Metrics, Scores
from .pipeline import Pipeline, Pixels
from .pool import Pool

GUIDANCES = (3.0, 5.0, 7.0)
BATCH = 20
ON_BASE_SHEET = 48
SHOWN = 4  # people on the contact sheet


@dataclass(frozen=True)
class Variant:
    """One way to draw a person; without an adapter it is the text alone."""

    adapter: str = ""
    mixing: Mixing = Mixing.MIXED
    style: Style = Style.PHOTO
    style_in_cross_attention: bool = False

    def apply(self, identities: Mapping[str, Identity]) -> list[Application]:
        if not self.adapter:
            return []
        return [
            Application(
                identities[self.adapter],
                mixing=self.mixing,
                style=self.style,
                style_in_cross_attention=self.style_in_cross_attention,
            )
        ]


TEXT, FULL, UNMIXED, MUTUAL = (
    "text only",
    "full Infinite-ID",
    "without mixed attention",
    "mutual instead of mixed",
)
ONE_STREAM, TWO_STREAMS = "trained with text, one stream", "trained with text, two streams"
PLAIN, MEAN, BOTH, ADAIN = (
    "without AdaIN",
    "AdaIN-mean",
    "AdaIN-mean, in cross-attention too",
    "full AdaIN",
)
ON_PHOTOS = {
    TEXT: Variant(),
    ONE_STREAM: Variant(WITH_TEXT, Mixing.OFF),
    TWO_STREAMS: Variant(WITH_TEXT),
    UNMIXED: Variant(OWN, Mixing.OFF),
    FULL: Variant(OWN),
    MUTUAL: Variant(OWN, Mixing.MUTUAL),
}
ON_STYLES = {
    TEXT: Variant(),
    PLAIN: Variant(OWN),
    MEAN: Variant(OWN, style=Style.ADAIN_MEAN),
    BOTH: Variant(OWN, style=Style.ADAIN_MEAN, style_in_cross_attention=True),
    ADAIN: Variant(OWN, style=Style.ADAIN),
}


@dataclass(frozen=True, eq=False)
class Outcome:
    """Scores `(people, prompts)` by variant and measure, and pictures for the contact sheet."""

    photos: dict[str, Scores]
    styles: dict[str, Scores]
    ceiling: Scores
    sheet: list[tuple[str, list[Pixels]]]


@dataclass(frozen=True, eq=False)
class _Part:
    """One person's part of an `Outcome`."""

    photos: dict[str, Scores]
    styles: dict[str, Scores]
    ceiling: Scores
    prompts: str
    shown: list[Pixels]
    kept: list[Row]


@dataclass(frozen=True, eq=False)
class Base:
    """Scores `(pictures,)` of the text alone, and of rendered pictures of the same scenes."""

    scores: Scores
    ceiling: Scores
    shown: Pixels


def score_guidances(pool: Pool, count: int) -> dict[float, tuple[float, float]]:
    """Return full Infinite-ID's likeness and following at each guidance, on separate people."""
    people = range(split.VALIDATION, split.VALIDATION + count)
    done = pool.map("guidance", _score_guidances, people)

    def mean(cfg: float, measure: str) -> float:
        return float(np.mean([one[cfg][measure] for one in done]))

    return {cfg: (mean(cfg, LIKENESS), mean(cfg, FOLLOWING)) for cfg in GUIDANCES}


def _score_guidances(pipeline: Pipeline, metrics: Metrics, number: int) -> dict[float, Scores]:
    person, scenes = metrics.embed_person(number), split.photos(number)
    prompts = [split.prompt(number, scene) for scene in scenes]
    application = Application(pipeline.encode(split.photo(number), OWN))

    def score(cfg: float) -> Scores:
        return metrics.score(pipeline.draw(prompts, [application], number, cfg), scenes, person)

    return {cfg: score(cfg) for cfg in GUIDANCES}


def score_base(pool: Pool, count: int, cfg: float) -> Base:
    """Draw `count` pictures of as many people, in all styles, and score them."""
    people = range(split.BASE, split.BASE + count)
    batches = [people[n : n + BATCH] for n in range(0, count, BATCH)]
    done = pool.map("base model", partial(_score_batch, cfg=cfg), batches)
    found, best, pictures = zip(*done, strict=True)
    return Base(_join(found), _join(best), np.concatenate(pictures)[:ON_BASE_SHEET])


def score_all(pool: Pool, people: Iterable[int], cfg: float, folder: Path | None = None) -> Outcome:
    """Draw and score. If a folder is given, pictures of the variants on photos are kept there."""
    done = pool.map("test", partial(_score_one, cfg=cfg, folder=folder), people)
    if folder is not None:
        write_table(folder, (row for one in done for row in one.kept))
    return Outcome(
        photos={name: stack([one.photos[name] for one in done]) for name in ON_PHOTOS},
        styles={name: stack([one.styles[name] for one in done]) for name in ON_STYLES},
        ceiling=stack([one.ceiling for one in done]),
        sheet=[(one.prompts, one.shown) for one in done[:SHOWN]],
    )


def _score_one(
    pipeline: Pipeline, metrics: Metrics, number: int, cfg: float, folder: Path | None = None
) -> _Part:
    """Draw and score one person in every variant."""
    person, input_photo = metrics.embed_person(number), split.photo(number)
    identities = {kind: pipeline.encode(input_photo, kind) for kind in (OWN, WITH_TEXT)}
    shown = [input_photo]
    kept = [] if folder is None else keep_photos(folder, number)

    def score_variants(variants: Mapping[str, Variant], scenes: list[Scene]) -> dict[str, Scores]:
        prompts = [split.prompt(number, scene) for scene in scenes]
        scores = {}
        for name, variant in variants.items():
            pictures = pipeline.draw(prompts, variant.apply(identities), seed=number, cfg=cfg)
            scores[name] = metrics.score(pictures, scenes, person)
            shown.append(pictures[0])
            if folder is not None and variants is ON_PHOTOS:
                kept.extend(keep_pictures(folder, name, number, prompts, pictures))
        return scores

    photos, styled = split.photos(number), split.styled(number)
    return _Part(
        photos=score_variants(ON_PHOTOS, photos),
        styles=score_variants(ON_STYLES, styled),
        ceiling=metrics.score(split.drawn(number), photos, person),
        prompts=f"{split.prompt(number, photos[0])} / {styled[0].style}",
        shown=shown,
        kept=kept,
    )


def stack(rows: Sequence[Scores]) -> Scores:
    """Stack the scores of each person to `(people, prompts)`."""
    return {measure: np.stack([row[measure] for row in rows]) for measure in rows[0]}


def _score_batch(
    pipeline: Pipeline, metrics: Metrics, people: range, cfg: float
) -> tuple[Scores, Scores, Pixels]:
    scenes = [split.any_scene(person) for person in people]
    prompts = [split.prompt(*pair) for pair in zip(people, scenes, strict=True)]
    pictures = pipeline.draw(prompts, [], seed=people[0], cfg=cfg)
    drawn = split.render_each(people, scenes)
    return metrics.follows(pictures, scenes), metrics.follows(drawn, scenes), pictures


def _join(parts: Sequence[Scores]) -> Scores:
    return {measure: np.concatenate([part[measure] for part in parts]) for measure in parts[0]}

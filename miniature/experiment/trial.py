"""The trial: ways to draw x held-out people x prompts, judged."""

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
from . import cast
from .crew import Crew
from .jury import FOLLOWING, LIKENESS, Jury, Scores
from .keep import Row, keep_photos, keep_pictures, write_table
from .studio import Pixels, Studio

GUIDANCES = (3.0, 5.0, 7.0)
BATCH = 20
ON_BASE_SHEET = 48
SHOWN = 4  # people on the contact sheet


@dataclass(frozen=True)
class Way:
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
    TEXT: Way(),
    ONE_STREAM: Way(WITH_TEXT, Mixing.OFF),
    TWO_STREAMS: Way(WITH_TEXT),
    UNMIXED: Way(OWN, Mixing.OFF),
    FULL: Way(OWN),
    MUTUAL: Way(OWN, Mixing.MUTUAL),
}
ON_STYLES = {
    TEXT: Way(),
    PLAIN: Way(OWN),
    MEAN: Way(OWN, style=Style.ADAIN_MEAN),
    BOTH: Way(OWN, style=Style.ADAIN_MEAN, style_in_cross_attention=True),
    ADAIN: Way(OWN, style=Style.ADAIN),
}


@dataclass(frozen=True, eq=False)
class Trial:
    """Scores `(people, prompts)` by way and measure, and pictures for the sheet."""

    photos: dict[str, Scores]
    styles: dict[str, Scores]
    ceiling: Scores
    sheet: list[tuple[str, list[Pixels]]]


@dataclass(frozen=True, eq=False)
class _Tried:
    """One person's part of the trial."""

    photos: dict[str, Scores]
    styles: dict[str, Scores]
    ceiling: Scores
    prompts: str
    shown: list[Pixels]
    kept: list[Row]


@dataclass(frozen=True, eq=False)
class Base:
    """Scores `(pictures,)` of the text alone, and of drawn pictures of the same scenes."""

    scores: Scores
    ceiling: Scores
    shown: Pixels


def try_guidances(crew: Crew, count: int) -> dict[float, tuple[float, float]]:
    """Full Infinite-ID's likeness and following at each guidance, on people kept for this."""
    people = range(cast.VALIDATION, cast.VALIDATION + count)
    done = crew.map("guidance", _try_guidances, people)

    def mean(cfg: float, measure: str) -> float:
        return float(np.mean([one[cfg][measure] for one in done]))

    return {cfg: (mean(cfg, LIKENESS), mean(cfg, FOLLOWING)) for cfg in GUIDANCES}


def _try_guidances(studio: Studio, jury: Jury, number: int) -> dict[float, Scores]:
    person, scenes = jury.portray(number), cast.photos(number)
    prompts = [cast.prompt(number, scene) for scene in scenes]
    application = Application(studio.encode(cast.photo(number), OWN))

    def judge(cfg: float) -> Scores:
        return jury.judge(studio.draw(prompts, [application], number, cfg), scenes, person)

    return {cfg: judge(cfg) for cfg in GUIDANCES}


def judge_base(crew: Crew, count: int, cfg: float) -> Base:
    """So many pictures of as many people, in all styles."""
    people = range(cast.BASE, cast.BASE + count)
    batches = [people[n : n + BATCH] for n in range(0, count, BATCH)]
    done = crew.map("base model", partial(_judge_batch, cfg=cfg), batches)
    found, best, pictures = zip(*done, strict=True)
    return Base(_join(found), _join(best), np.concatenate(pictures)[:ON_BASE_SHEET])


def try_all(crew: Crew, people: Iterable[int], cfg: float, folder: Path | None = None) -> Trial:
    """Draw and judge; the pictures of the ways on photos are kept in a folder, if one is given."""
    done = crew.map("trial", partial(_try_one, cfg=cfg, folder=folder), people)
    if folder is not None:
        write_table(folder, (row for one in done for row in one.kept))
    return Trial(
        photos={name: stack([one.photos[name] for one in done]) for name in ON_PHOTOS},
        styles={name: stack([one.styles[name] for one in done]) for name in ON_STYLES},
        ceiling=stack([one.ceiling for one in done]),
        sheet=[(one.prompts, one.shown) for one in done[:SHOWN]],
    )


def _try_one(
    studio: Studio, jury: Jury, number: int, cfg: float, folder: Path | None = None
) -> _Tried:
    """Everything that is drawn of one person."""
    person, input_photo = jury.portray(number), cast.photo(number)
    identities = {kind: studio.encode(input_photo, kind) for kind in (OWN, WITH_TEXT)}
    shown = [input_photo]
    kept = [] if folder is None else keep_photos(folder, number)

    def try_ways(ways: Mapping[str, Way], scenes: list[Scene]) -> dict[str, Scores]:
        prompts = [cast.prompt(number, scene) for scene in scenes]
        scores = {}
        for name, way in ways.items():
            pictures = studio.draw(prompts, way.apply(identities), seed=number, cfg=cfg)
            scores[name] = jury.judge(pictures, scenes, person)
            shown.append(pictures[0])
            if folder is not None and ways is ON_PHOTOS:
                kept.extend(keep_pictures(folder, name, number, prompts, pictures))
        return scores

    photos, styled = cast.photos(number), cast.styled(number)
    return _Tried(
        photos=try_ways(ON_PHOTOS, photos),
        styles=try_ways(ON_STYLES, styled),
        ceiling=jury.judge(cast.drawn(number), photos, person),
        prompts=f"{cast.prompt(number, photos[0])} / {styled[0].style}",
        shown=shown,
        kept=kept,
    )


def stack(rows: Sequence[Scores]) -> Scores:
    """A person's scores each -> `(people, prompts)`."""
    return {measure: np.stack([row[measure] for row in rows]) for measure in rows[0]}


def _judge_batch(
    studio: Studio, jury: Jury, people: range, cfg: float
) -> tuple[Scores, Scores, Pixels]:
    scenes = [cast.any_scene(person) for person in people]
    prompts = [cast.prompt(*pair) for pair in zip(people, scenes, strict=True)]
    pictures = studio.draw(prompts, [], seed=people[0], cfg=cfg)
    drawn = cast.render_each(people, scenes)
    return jury.follows(pictures, scenes), jury.follows(drawn, scenes), pictures


def _join(parts: Sequence[Scores]) -> Scores:
    return {measure: np.concatenate([part[measure] for part in parts]) for measure in parts[0]}

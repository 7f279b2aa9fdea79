"""The trial: ways to draw x held-out people x prompts, judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from infinite_id.application import Application
from infinite_id.attention.mixed import Mixing, Style
from infinite_id.identity import Identity

from ..training.publish import OWN, WITH_TEXT
from ..world.scene import Scene
from . import cast
from .jury import FOLLOWING, Jury, Scores
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
class Base:
    """Scores `(pictures,)` of the text alone, and of drawn pictures of the same scenes."""

    scores: Scores
    ceiling: Scores
    shown: Pixels


def choose_guidance(studio: Studio, jury: Jury, count: int) -> dict[float, float]:
    """How well the text alone is followed at each guidance, on people kept for this."""
    people = range(cast.VALIDATION, cast.VALIDATION + count)
    scenes = [cast.any_scene(person) for person in people]
    return {
        cfg: float(jury.follows(_draw_many(studio, people, scenes, cfg), scenes)[FOLLOWING].mean())
        for cfg in GUIDANCES
    }


def judge_base(studio: Studio, jury: Jury, count: int, cfg: float) -> Base:
    """So many pictures of as many people, in all styles."""
    people = range(cast.BASE, cast.BASE + count)
    scenes = [cast.any_scene(person) for person in people]
    pictures = _draw_many(studio, people, scenes, cfg)
    ceiling = jury.follows(cast.render_each(people, scenes), scenes)
    return Base(jury.follows(pictures, scenes), ceiling, pictures[:ON_BASE_SHEET])


def try_all(studio: Studio, jury: Jury, people: Iterable[int], cfg: float) -> Trial:
    photos: dict[str, list[Scores]] = {name: [] for name in ON_PHOTOS}
    styles: dict[str, list[Scores]] = {name: [] for name in ON_STYLES}
    ceiling: list[Scores] = []
    sheet: list[tuple[str, list[Pixels]]] = []
    for number in people:
        person, input_photo = jury.portray(number), cast.photo(number)
        identities = {kind: studio.encode(input_photo, kind) for kind in (OWN, WITH_TEXT)}
        ceiling.append(jury.judge(cast.drawn(number), cast.photos(number), person))
        shown = [input_photo]
        for ways, scenes, scores in (
            (ON_PHOTOS, cast.photos(number), photos),
            (ON_STYLES, cast.styled(number), styles),
        ):
            prompts = [cast.prompt(number, scene) for scene in scenes]
            for name, way in ways.items():
                pictures = studio.draw(prompts, way.apply(identities), seed=number, cfg=cfg)
                scores[name].append(jury.judge(pictures, scenes, person))
                shown.append(pictures[0])
        if len(sheet) < SHOWN:
            first, style = cast.photos(number)[0], cast.styled(number)[0]
            sheet.append((f"{cast.prompt(number, first)} / {style.style}", shown))
        print(f"person {len(ceiling)}", flush=True)
    return Trial(
        photos={name: stack(rows) for name, rows in photos.items()},
        styles={name: stack(rows) for name, rows in styles.items()},
        ceiling=stack(ceiling),
        sheet=sheet,
    )


def stack(rows: Sequence[Scores]) -> Scores:
    """A person's scores each -> `(people, prompts)`."""
    return {measure: np.stack([row[measure] for row in rows]) for measure in rows[0]}


def _draw_many(studio: Studio, people: range, scenes: list[Scene], cfg: float) -> Pixels:
    """A picture for each person and scene by the text alone, `(n, 128, 128, 3)`."""
    prompts = [cast.prompt(*pair) for pair in zip(people, scenes, strict=True)]
    return np.concatenate(
        [
            studio.draw(prompts[n : n + BATCH], [], seed=people[n], cfg=cfg)
            for n in range(0, len(prompts), BATCH)
        ]
    )

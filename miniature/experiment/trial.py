"""The trial: ways to draw x held-out people x prompts, judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from infinite_id import mixing
from infinite_id.application import Application
from infinite_id.attention.mixed import Mixing, Style
from infinite_id.identity import Identity

from ..faces import render
from ..training.judge import QUESTIONS
from ..training.pictures import HELD_OUT
from ..training.publish import OWN, WITH_TEXT
from ..world.identity import draw_identity
from ..world.scene import STYLES, Scene, draw_scene
from .jury import Jury
from .studio import Pixels, Studio

LIKENESS = "likeness"
MEASURES = (LIKENESS, *QUESTIONS)
FIRST_PERSON, FIRST_SCENE = HELD_OUT + 10_000, 2_000_000
PHOTOS, STYLED = 4, 3  # prompts for each person
SHOWN = 4  # people on the contact sheet
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
PAIRS = 12  # of people, for the curves
Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Way:
    """One way to draw a person; without an adapter it is the text alone."""

    adapter: str = ""
    mixing: Mixing = Mixing.MIXED
    style: Style = Style.PHOTO

    def apply(self, identities: Mapping[str, Identity]) -> list[Application]:
        if not self.adapter:
            return []
        return [Application(identities[self.adapter], mixing=self.mixing, style=self.style)]


FULL = "full Infinite-ID"
ON_PHOTOS = {
    "text only": Way(),
    "trained with text, one stream": Way(WITH_TEXT, Mixing.OFF),
    "trained with text, two streams": Way(WITH_TEXT),
    "without mixed attention": Way(OWN, Mixing.OFF),
    FULL: Way(OWN),
    "mutual instead of mixed": Way(OWN, Mixing.MUTUAL),
}
ON_STYLES = {
    "text only": Way(),
    "without AdaIN": Way(OWN),
    "AdaIN-mean": Way(OWN, style=Style.ADAIN_MEAN),
    "full AdaIN": Way(OWN, style=Style.ADAIN),
}


@dataclass
class Results:
    """Scores `(people, prompts)` by way and measure; curves; pictures for the sheet."""

    photos: dict[str, Scores]
    styles: dict[str, Scores]
    ceiling: Scores
    by_weight: dict[float, Scores] = field(default_factory=dict)
    blends: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # (pairs, places, 2)
    sheet: list[tuple[str, list[Pixels]]] = field(default_factory=list)


def run(people: int) -> Results:
    studio = Studio.open()
    jury = Jury.seat(studio.analysis)
    numbers = [FIRST_PERSON + n for n in range(people)]
    results = Results(
        photos=_empty(ON_PHOTOS),
        styles=_empty(ON_STYLES),
        ceiling={m: np.empty(0) for m in MEASURES},
    )
    for number in numbers:
        person = jury.portray(number, FIRST_SCENE + 100 * number)
        identities = _encode(studio, number)
        photos, styles = _scenes(number)
        drawn = [render(draw_identity(number), replace(s, seed=s.seed + 50)).pixels for s in photos]
        _note(results.ceiling, _judge(jury, np.stack(drawn), photos, person))
        shown = [_photo(number)]
        for ways, scenes, scores in (
            (ON_PHOTOS, photos, results.photos),
            (ON_STYLES, styles, results.styles),
        ):
            for name, way in ways.items():
                pictures = studio.draw(_prompts(number, scenes), way.apply(identities), seed=number)
                _note(scores[name], _judge(jury, pictures, scenes, person))
                shown.append(pictures[0])
        if number - FIRST_PERSON < SHOWN:
            results.sheet.append((_prompts(number, photos)[0], shown))
        print(f"person {number - FIRST_PERSON + 1} of {people}", flush=True)
    results.by_weight = {w: _by_weight(studio, jury, numbers[: 2 * PAIRS], w) for w in WEIGHTS}
    results.blends = _blend(studio, jury, numbers[: 2 * PAIRS])
    return results


def _empty(ways: Mapping[str, Way]) -> dict[str, Scores]:
    return {name: {measure: np.empty(0) for measure in MEASURES} for name in ways}


def _note(scores: Scores, found: Scores) -> None:
    for measure, row in found.items():
        old = scores[measure]
        scores[measure] = row[None] if old.size == 0 else np.vstack([old, row])


def _judge(jury: Jury, pictures: Pixels, scenes: list[Scene], person: Tensor) -> Scores:
    follows = jury.follows(pictures, scenes)
    found = {LIKENESS: jury.resembles(pictures, person), **follows}
    return {measure: np.array(values) for measure, values in found.items()}


def _photo(number: int) -> Pixels:
    """The photo of a person that the encoder sees."""
    scene = draw_scene(FIRST_SCENE + 100 * number + 90, "photo")
    return render(draw_identity(number), scene).pixels


def _encode(studio: Studio, number: int) -> dict[str, Identity]:
    return {kind: studio.encode(_photo(number), kind) for kind in (OWN, WITH_TEXT)}


def _scenes(number: int) -> tuple[list[Scene], list[Scene]]:
    """What the prompts ask for: photos, and one picture in each of the other styles."""
    first = FIRST_SCENE + 100 * number + 20
    photos = [draw_scene(first + n, "photo") for n in range(PHOTOS)]
    others = [style for style in STYLES if style != "photo"]
    styles = [draw_scene(first + 10 + n, style) for n, style in enumerate(others[:STYLED])]
    return photos, styles


def _prompts(number: int, scenes: list[Scene]) -> list[str]:
    noun = draw_identity(number).noun()
    return [", ".join([f"{STYLES[scene.style]} {noun}", *scene.describe()]) for scene in scenes]


def _by_weight(studio: Studio, jury: Jury, numbers: list[int], weight: float) -> Scores:
    scores: Scores = {measure: np.empty(0) for measure in MEASURES}
    for number in numbers:
        person = jury.portray(number, FIRST_SCENE + 100 * number)
        scenes = _scenes(number)[0][:2]
        application = Application(_encode(studio, number)[OWN], weight=weight)
        pictures = studio.draw(_prompts(number, scenes), [application], seed=number)
        _note(scores, _judge(jury, pictures, scenes, person))
    return scores


def _blend(studio: Studio, jury: Jury, numbers: list[int]) -> dict[str, NDArray[np.float64]]:
    """Likeness to either person along the way from one to the other."""
    methods = {"interpolation": mixing.interpolate, "stack": mixing.cross_fade}
    found: dict[str, list[list[list[float]]]] = {name: [] for name in methods}
    for a, b in zip(numbers[::2], numbers[1::2], strict=True):
        keys = [_encode(studio, number)[OWN] for number in (a, b)]
        people = [jury.portray(number, FIRST_SCENE + 100 * number) for number in (a, b)]
        prompt = _prompts(a, _scenes(a)[0][:1])
        for name, method in methods.items():
            row = studio.draw(prompt, [Application(method(keys, PLACES))], seed=a)
            both = [jury.resembles(row, person) for person in people]
            found[name].append(np.array(both).T.tolist())
    return {name: np.array(rows) for name, rows in found.items()}

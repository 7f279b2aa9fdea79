"""The people and scenes of the ablation. None of these people is in a training picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ..faces import render
from ..training.pictures import HELD_OUT
from ..world import captions
from ..world.identity import draw_identity
from ..world.scene import STYLES, Scene, draw_scene
from .pipeline import SIDE, Pixels

TEST, VALIDATION, BASE, PAIRS = (HELD_OUT + n for n in (10_000, 20_000, 30_000, 40_000))
"""The first person of each set: test, choice of the guidance, test of the base model, pairs."""

Pair = tuple[int, int]

_SCENES = 100  # for each person
_PHOTO, _PORTRAITS, _PHOTOS, _STYLED, _DRAWN, _OWN = 0, 10, 20, 30, 40, 50
_PROMPTS, _LIKENESSES = 4, 8


def photo(person: int) -> Pixels:
    """The photo of a person that the encoder sees, `(128, 128, 3)`."""
    return _draw(person, _scene(person, _PHOTO, "photo"))


def own_photos(person: int, count: int) -> Pixels:
    """Draw several photos of a person, in different scenes, `(count, 128, 128, 3)`."""
    return np.stack([_draw(person, _scene(person, _OWN + n, "photo")) for n in range(count)])


def photos(person: int) -> list[Scene]:
    """Return scenes to draw as photos."""
    return [_scene(person, _PHOTOS + n, "photo") for n in range(_PROMPTS)]


def styled(person: int) -> list[Scene]:
    """Return a scene in each of the other styles."""
    others = [style for style in STYLES if style != "photo"]
    return [_scene(person, _STYLED + n, style) for n, style in enumerate(others)]


def any_scene(person: int) -> Scene:
    return _scene(person, _PHOTOS)


def drawn(person: int) -> Pixels:
    """Render the person in the scenes of `photos`, as a perfect model would draw them."""
    scenes = [replace(s, seed=s.seed + _DRAWN - _PHOTOS) for s in photos(person)]
    return render_each([person] * len(scenes), scenes)


def render_each(people: Iterable[int], scenes: Iterable[Scene]) -> Pixels:
    """Render the n-th person in the n-th scene, `(n, 128, 128, 3)`."""
    pairs = zip(people, scenes, strict=True)
    return np.stack([_draw(person, scene) for person, scene in pairs])


def portraits(person: int) -> list[Scene]:
    """Return scenes; the mean features of their pictures stand for the person in the metrics."""
    return [_scene(person, _PORTRAITS + n) for n in range(_LIKENESSES)]


def pair_up(count: int) -> list[Pair]:
    """Return pairs of people with the same noun, so that one prompt suits both."""
    single: dict[str, int] = {}
    pairs: list[Pair] = []
    person = PAIRS
    while len(pairs) < count:
        noun = captions.noun(draw_identity(person))
        if noun in single:
            pairs.append((single.pop(noun), person))
        else:
            single[noun] = person
        person += 1
    return pairs


def prompt(person: int, scene: Scene) -> str:
    return captions.prompt(draw_identity(person), scene)


def _scene(person: int, number: int, style: str | None = None) -> Scene:
    return draw_scene(person * _SCENES + number, style)


def _draw(person: int, scene: Scene) -> Pixels:
    return render(draw_identity(person), scene).resized(8 * SIDE).pixels

"""Captions of pictures, in the vocabulary's words.

As in captions of real photos, some describe the person, some only say what they wear and where they
are, and some call them by name. So text and photo can describe the same things.
"""

from __future__ import annotations

import numpy as np

from .identity import Identity, pick
from .names import NAMES
from .scene import PLACES, STYLES, Scene

# Other words for a style, beside those of `STYLES`.
SYNONYMS = {
    "photo": ("a portrait photo of", "a photograph of"),
    "pencil": ("a pencil drawing of", "a sketch of"),
    "comic": ("a comic of", "a cartoon of"),
    "watercolor": ("a watercolor of", "a watercolor portrait of"),
    "oil": ("an oil portrait of", "a painting in oil of"),
    "ukiyoe": ("a ukiyo e print of", "a woodcut of"),
    "animation": ("an animation picture of", "an anime picture of"),
}
# How a caption speaks of the person, and how often.
MANNERS = (("noun", 4), ("person", 1.5), ("face", 1), ("some", 2.5), ("all", 3))
NAMED = 0.7  # share of the captions of people with a name that use it
_CUTS = {
    "long": "long straight",
    "wavy": "long wavy",
    "bob": "medium",
    "bun": "bun",
    "fringe": "medium fringe",
    "curly": "curly",
    "short": "short",
    "side": "short side",
    "quiff": "short thick",
    "receding": "thin",
}
_BEARDS = {
    "stubble": "stubble",
    "moustache": "a moustache",
    "goatee": "a short beard",
    "full": "a beard",
}
_FRAMES = ("black", "brown", "red", "blue")
_SKINS = ("pale", "fair", "tan", "brown", "dark")


def noun(identity: Identity) -> str:
    return "a woman" if identity.woman else "a man"


def describe_person(identity: Identity, coloured: bool, parts: list[bool] | None = None) -> str:
    """Return e.g. 'an old woman with long wavy ginger hair and green eyes'; colours are optional.

    `parts` says for each of the features whether it is named; without it, all are.
    """
    kept = features(identity, coloured)
    if parts is not None:
        kept = [feature for feature, keep in zip(kept, parts, strict=False) if keep]
    words = ("old " if identity.old else "") + ("bald " if identity.cut == "bald" else "")
    words += "woman" if identity.woman else "man"
    article = "an" if words[0] in "aeiou" else "a"
    return f"{article} {words}" + (f" with {' and '.join(kept)}" if kept else "")


def features(identity: Identity, coloured: bool) -> list[str]:
    """List the features of a person in words, the plainest first."""
    found = []
    if identity.cut != "bald":
        words = (_CUTS[identity.cut], identity.hair if coloured else "", "hair")
        found.append(" ".join(word for word in words if word))
    if identity.glasses != "none":
        frame = f"{_FRAMES[identity.frame]} " if coloured else ""
        found.append(f"{identity.glasses} {frame}glasses")
    if identity.beard != "none":
        found.append(_BEARDS[identity.beard])
    if coloured:
        found.append(f"{_SKINS[min(4, int(identity.skin * 5))]} skin")
        found.append(f"{identity.eyes} eyes")
    if identity.freckles:
        found.append("freckles")
    if identity.earrings:
        found.append("earrings")
    return found


def describe_scene(scene: Scene) -> tuple[str, str, str]:
    """Return expression, clothes and place in words."""
    words = (scene.pattern, scene.colour if scene.coloured else "plain", scene.garment)
    clothes = " ".join(word for word in words if word != "plain")
    article = "an" if clothes[0] in "aeiou" else "a"
    return (
        scene.expression,
        f"wearing {article} {clothes}",
        PLACES[scene.place].format(wall=scene.wall if scene.coloured else "grey"),
    )


def prompt(identity: Identity, scene: Scene) -> str:
    """Return the plainest caption that describes the whole scene."""
    return ", ".join([f"{STYLES[scene.style]} {noun(identity)}", *describe_scene(scene)])


def caption(person: int, identity: Identity, scene: Scene) -> str:
    """Return a caption for the picture of person number `person`; parts may be left out."""
    rng = np.random.default_rng([scene.seed, 3])
    style = STYLES[scene.style]
    if rng.random() < 0.25:
        style = SYNONYMS[scene.style][int(rng.integers(2))]
    kept = [part for part in describe_scene(scene) if rng.random() < 0.85]
    return ", ".join([f"{style} {_speak_of(person, identity, scene, rng)}", *kept])


def _speak_of(person: int, identity: Identity, scene: Scene, rng: np.random.Generator) -> str:
    manner = pick(rng, MANNERS)
    if person < len(NAMES) and rng.random() < NAMED:
        return ("the face of " if manner == "face" else "") + NAMES[person]
    if manner == "noun":
        return noun(identity)
    if manner == "person":
        return "a person"
    if manner == "face":
        return "the face of " + (noun(identity) if rng.random() < 0.6 else "a person")
    most = features(identity, scene.coloured)[:4]
    keep = [manner == "all" or bool(rng.random() < 0.5) for _ in most]
    return describe_person(identity, scene.coloured, keep)

"""Who a person is: everything that stays the same from picture to picture."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]

SKIN = np.array(
    [
        (255, 222, 200),
        (244, 199, 165),
        (226, 174, 132),
        (196, 138, 96),
        (148, 96, 64),
        (98, 62, 44),
    ],
    float,
)
HAIR: dict[str, Colour] = {
    "black": (34, 29, 32),
    "brown": (104, 66, 42),
    "auburn": (142, 58, 36),
    "ginger": (208, 104, 42),
    "blond": (230, 194, 112),
    "grey": (158, 158, 162),
    "white": (228, 226, 222),
}
EYES: dict[str, Colour] = {
    "brown": (92, 54, 30),
    "black": (34, 26, 24),
    "blue": (66, 128, 200),
    "green": (74, 146, 82),
    "grey": (122, 134, 142),
}
CUTS = {
    "woman": (
        ("long", 4),
        ("wavy", 3),
        ("bob", 3),
        ("bun", 2),
        ("fringe", 3),
        ("curly", 2),
        ("short", 1),
    ),
    "man": (
        ("short", 4),
        ("side", 3),
        ("quiff", 2),
        ("curly", 2),
        ("bald", 2),
        ("receding", 2),
        ("long", 1),
    ),
}
GLASSES = (("none", 6), ("round", 2), ("square", 2))
BEARDS = (("none", 5), ("stubble", 2), ("moustache", 2), ("goatee", 2), ("full", 3))
FRAMES: tuple[Colour, ...] = ((28, 26, 30), (110, 50, 30), (150, 30, 44), (40, 70, 130))


@dataclass(frozen=True)
class Identity:
    """Continuous features lie in 0..1; colours are RGB in 0..255."""

    woman: bool
    old: bool
    skin: float  # pale to dark
    undertone: float
    hair: str
    hair_tint: float
    cut: str
    parting: float  # left to right
    volume: float
    eyes: str
    eye_spacing: float
    eye_size: float
    eye_slant: float
    width: float
    jaw: float  # pointed to square
    chin: float
    nose_length: float
    nose_width: float
    mouth_width: float
    lips: float
    brow_thickness: float
    brow_slant: float
    ears: float
    glasses: str
    frame: int
    beard: str
    freckles: bool
    mole: int  # 0: none; 1..4: where
    earrings: bool

    def skin_colour(self) -> NDArray[np.float64]:
        at = self.skin * (len(SKIN) - 1)
        tone = np.array([np.interp(at, range(len(SKIN)), SKIN[:, i]) for i in range(3)])
        return np.clip(tone + (self.undertone - 0.5) * np.array([10.0, 0.0, -18.0]), 0, 255)

    def hair_colour(self) -> NDArray[np.float64]:
        return np.clip(np.array(HAIR[self.hair]) * (0.85 + 0.3 * self.hair_tint), 0, 255)


def draw_identity(seed: int) -> Identity:
    """Draw a random person; the same seed gives the same person."""
    rng = np.random.default_rng([seed, 1])
    woman, old, skin = bool(rng.random() < 0.5), bool(rng.random() < 0.2), float(rng.random())
    drawn: dict[str, Any] = {field.name: float(rng.random()) for field in fields(Identity)}
    return Identity(
        **drawn
        | {
            "woman": woman,
            "old": old,
            "skin": skin,
            "hair": _hair_name(rng, old, skin),
            "cut": pick(rng, CUTS["woman" if woman else "man"]),
            "eyes": pick(rng, _eye_weights(skin)),
            "glasses": pick(rng, GLASSES),
            "frame": int(rng.integers(len(FRAMES))),
            "beard": "none" if woman else pick(rng, BEARDS),
            "freckles": bool(skin < 0.55 and rng.random() < 0.2),
            "mole": max(0, int(rng.integers(-6, 5))),
            "earrings": bool(woman and rng.random() < 0.4),
        }
    )


def pick(rng: np.random.Generator, weighted: tuple[tuple[str, float], ...]) -> str:
    weights = np.array([weight for _, weight in weighted], float)
    return weighted[int(rng.choice(len(weights), p=weights / weights.sum()))][0]


def _hair_name(rng: np.random.Generator, old: bool, skin: float) -> str:
    if old:
        return pick(rng, (("grey", 3), ("white", 3), ("black", 1), ("brown", 1)))
    if skin > 0.65:
        return pick(rng, (("black", 5), ("brown", 3), ("auburn", 1), ("blond", 0.5)))
    return pick(rng, (("black", 2), ("brown", 3), ("auburn", 2), ("ginger", 2), ("blond", 3)))


def _eye_weights(skin: float) -> tuple[tuple[str, float], ...]:
    if skin > 0.65:
        return (("brown", 3), ("black", 3), ("green", 1))
    return (("brown", 2), ("black", 1), ("blue", 3), ("green", 2), ("grey", 1))

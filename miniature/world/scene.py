"""All of a picture that is not the person: pose, expression, clothes, place, light, style."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .identity import Colour, pick

STYLES = {
    "photo": "a photo of",
    "pencil": "a pencil sketch of",
    "comic": "a comic book drawing of",
    "watercolor": "a watercolor painting of",
    "oil": "an oil painting of",
    "ukiyoe": "a ukiyo woodcut of",
    "animation": "an animation of",
}
STYLE_WEIGHTS = tuple((style, 5.0 if style == "photo" else 2.0) for style in STYLES)
EXPRESSIONS = ("serious", "smiling", "laughing", "surprised", "sad", "angry")
GARMENTS = ("shirt", "sweater", "hoodie", "jacket", "suit", "dress")
PATTERNS = (("plain", 6), ("striped", 2), ("dotted", 1))
COLOURS: dict[str, Colour] = {
    "red": (200, 40, 44),
    "orange": (236, 126, 32),
    "yellow": (240, 206, 50),
    "green": (52, 140, 66),
    "blue": (46, 84, 186),
    "purple": (124, 58, 156),
    "pink": (240, 138, 176),
    "brown": (116, 74, 44),
    "black": (36, 36, 42),
    "white": (238, 238, 236),
    "grey": (134, 136, 142),
}
WALLS = ("red", "yellow", "green", "blue", "pink", "grey", "white")
PLACES = {
    "wall": "in front of a {wall} wall",
    "forest": "in the forest",
    "beach": "on the beach",
    "snow": "in the snow",
    "city": "in the city",
    "night": "in the city at night",
    "room": "in the living room",
    "library": "in the library",
    "desert": "in the desert",
    "mountains": "in the mountains",
    "sunset": "by the sea at sunset",
    "garden": "in the garden",
}


@dataclass(frozen=True)
class Scene:
    style: str
    expression: str
    garment: str
    colour: str
    pattern: str
    place: str
    wall: str
    x: float  # of the head's centre, share of the picture's side
    y: float
    scale: float  # half the head's height, share of the side
    tilt: float  # radians
    yaw: float  # -1..1: looking to the picture's left or right
    light: float  # -1..1: from left to right
    brightness: float
    warmth: float
    seed: int  # of all the rest: leaves, hatching, paper

    @property
    def coloured(self) -> bool:
        return self.style != "pencil"


def draw_scene(seed: int, style: str | None = None) -> Scene:
    """Draw a random scene, the same for the same seed. The style only changes the rendering."""
    rng = np.random.default_rng([seed, 2])
    scale = rng.uniform(0.275, 0.345)
    own_style = pick(rng, STYLE_WEIGHTS)
    return Scene(
        style=style or own_style,
        expression=EXPRESSIONS[int(rng.integers(len(EXPRESSIONS)))],
        garment=GARMENTS[int(rng.integers(len(GARMENTS)))],
        colour=list(COLOURS)[int(rng.integers(len(COLOURS)))],
        pattern=pick(rng, PATTERNS),
        place=list(PLACES)[int(rng.integers(len(PLACES)))],
        wall=WALLS[int(rng.integers(len(WALLS)))],
        x=0.5 + rng.uniform(-0.07, 0.07),
        y=0.125 + scale + rng.uniform(-0.02, 0.05),
        scale=scale,
        tilt=float(np.clip(rng.normal(0, 0.08), -0.2, 0.2)),
        yaw=float(rng.uniform(-1, 1)),
        light=float(rng.uniform(-1, 1)),
        brightness=float(rng.uniform(0.92, 1.08)),
        warmth=float(rng.uniform(-1, 1)),
        seed=seed,
    )

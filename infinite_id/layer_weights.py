"""Weights of single layers of the UNet, as a user writes them.

The layers are the UNet's spatial transformers, of which SDXL has eleven, in the order in which they
run: `down1` to `down4`, `middle`, `up1` to `up6`. Each holds two or ten cross-attentions.
"""

import math
from collections.abc import Mapping

from .attention.blocks import Layers

Place = tuple[str, int]
"""Stage and number of a spatial transformer, as `Block` has them."""

MOST = 3.0

_WORDS = {"input": "down", "middle": "middle", "output": "up"}


def name_places(layers: Layers) -> dict[str, Place]:
    """Name a UNet's spatial transformers, in order of execution."""
    places = list(dict.fromkeys((block.stage, block.number) for block in layers))
    named: dict[str, Place] = {}
    for stage, word in _WORDS.items():
        own = [place for place in places if place[0] == stage]
        numbered = {f"{word}{i}": place for i, place in enumerate(own, start=1)}
        named |= {word: own[0]} if stage == "middle" and own else numbered
    return named


def read_layer_weights(text: str, layers: Layers) -> dict[Place, float]:
    """Read factors: one number for each place, or names with numbers, such as `down2: 0.5, up1: 0`.

    Numbers stand between commas or on lines of their own. Places that are not named are left out.

    Raises:
        ValueError: saying what is wrong, and what the places are called.
    """
    places = name_places(layers)
    parts = [part.strip() for line in text.splitlines() for part in line.split(",")]
    entries = [part for part in parts if part]
    if not any(":" in entry for entry in entries):
        return _read_row(entries, places) if entries else {}
    found: dict[Place, float] = {}
    for entry in entries:
        name, _, number = (piece.strip() for piece in entry.partition(":"))
        if name not in places:
            raise ValueError(
                f"layer_weights: this model has no layer '{name[:50]}'; its layers are "
                f"{', '.join(places)}. Write such as 'down2: 0.5, up1: 0'."
            )
        if places[name] in found:
            raise ValueError(f"layer_weights: '{name}' is there twice. Give it one weight.")
        found[places[name]] = _read_number(number, name)
    return found


def _read_row(entries: list[str], places: Mapping[str, Place]) -> dict[Place, float]:
    if len(entries) != len(places):
        raise ValueError(
            f"layer_weights: there are {len(entries)} numbers, and this model has {len(places)} "
            f"layers: {', '.join(places)}. Give one number for each, or name the layers, such as "
            "'down2: 0.5'."
        )
    pairs = zip(places.items(), entries, strict=True)
    return {place: _read_number(entry, name) for (name, place), entry in pairs}


def _read_number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= MOST:
        raise ValueError(
            f"layer_weights: the weight of {name} must be a number from 0 to {MOST:g}; it is "
            f"'{text[:50]}'."
        )
    return number

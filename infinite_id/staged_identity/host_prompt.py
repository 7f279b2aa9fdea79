"""Prompts with staged words: the text encoders make a context for each stage, key and value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from comfy.sd import CLIP
from torch import Tensor

from ..words.files import Rows
from ..words.host_text import list_encoders, mark, read_table, tokenise
from .context import carry
from .host_apply import KEY
from .stages import MIDDLE, Contexts, Words, find_stage, list_starts

Conditioning = list[list[Any]]

PLACES = ("V*", "V2*", "V3*", "V4*")
"""The marks for people in a prompt, in order."""


class PlaceError(ValueError):
    """A prompt and people that do not go together; the message says what to do."""

    __module__ = "infinite_id"  # the page shows it; as a node pack's it would be a path


def encode(clip: CLIP, prompt: str, people: Mapping[str, Words]) -> Conditioning:
    """Encode the mean of all stages by the host's CLIP Text Encode, and add each stage's contexts.

    Args:
        people: words by their mark in the prompt, one of `PLACES`.

    Raises:
        PlaceError: if a person has no mark in the prompt, or a mark has no person.
        ClipError: if the text encoders are of another kind.
    """
    for place, words in people.items():
        _check_fits(clip, place, words)
    text = _put_marks(prompt, list(people))
    encoder = _Encoder(clip, text)
    own = list(people.values())
    starts = list_starts([words.stages for words in own])
    sides = [
        [words.at(find_stage(start, words.stages)) for words in own] for start in starts
    ]  # fmt: skip
    keys = [encoder.encode([key for key, _ in side]) for side in sides]
    values = [encoder.encode([value for _, value in side]) for side in sides]
    middle = encoder.encode([words.at(find_stage(MIDDLE, words.stages))[0] for words in own])
    mean = encoder.encode([words.mean() for words in own])
    conditioning = []
    for n, (context, more) in enumerate(mean):
        pairs = tuple((k[n][0], v[n][0]) for k, v in zip(keys, values, strict=True))
        contexts = Contexts(tuple(starts), pairs, context)
        pooled = middle[n][1]["pooled_output"]
        conditioning.append([carry(contexts), {**more, "pooled_output": pooled, KEY: contexts}])
    return conditioning


class _Encoder:
    """Encodes a text with rows; equal rows are encoded once."""

    def __init__(self, clip: CLIP, text: str) -> None:
        self._clip, self._text = clip, text
        self._known: dict[bytes, Conditioning] = {}

    def encode(self, rows: Sequence[Rows]) -> Conditioning:
        name = b"".join(_read_bytes(x) for own in rows for x in own.values())
        if name not in self._known:
            tokens = tokenise(self._clip, self._text, rows)
            self._known[name] = self._clip.encode_from_tokens_scheduled(tokens)
        return self._known[name]


def _read_bytes(x: Tensor) -> bytes:
    data: bytes = x.contiguous().numpy().tobytes()
    return data


def _put_marks(prompt: str, places: Sequence[str]) -> str:
    """Return the prompt with a mark in each place. Raises PlaceError if one is missing or empty."""
    text = prompt
    for number, place in enumerate(places):
        text, count = _find(place).subn(mark(number), text)
        if not count:
            raise PlaceError(
                f"The prompt has no '{place}' to stand for the person, such as 'a photo of "
                f"{place}'. Write it there, or choose no identity for it."
            )
    for place in PLACES:
        if place not in places and _find(place).search(text):
            raise PlaceError(
                f"The prompt says '{place}', and no identity is chosen for it. Choose one, or "
                "take it out of the prompt."
            )
    return text


def _find(place: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(place)}")


def _check_fits(clip: CLIP, place: str, words: Words) -> None:
    """Raises PlaceError if words are not for these text encoders."""
    for key, encoder in list_encoders(clip).items():
        width = read_table(encoder).shape[1]
        if key not in words.keys or words.keys[key].shape[-1] != width:
            own = ", ".join(f"{name} {x.shape[-1]}" for name, x in words.keys.items())
            raise PlaceError(
                f"The identity for '{place}' has words for {own} wide, and this CLIP needs {key} "
                f"{width} wide. Choose one that was learnt with a model of this kind."
            )

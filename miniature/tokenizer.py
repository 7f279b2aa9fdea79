"""Turns words into numbers: a small list of words; all others are spelt letter by letter."""

from __future__ import annotations

import json
import re
from pathlib import Path

from .shapes import VOCABULARY_FILE

# The first entries of the vocabulary. The host pads the larger encoder's prompts with 0.
PAD, START, END, UNKNOWN = range(4)
PIECES = re.compile(r"[a-z]+|\S")


def load_vocabulary(path: Path = VOCABULARY_FILE) -> list[str]:
    return json.loads(path.read_text(encoding="utf-8"))


class WordTokenizer:
    """The part of a transformers tokenizer that the host's SDTokenizer calls."""

    def __init__(self, words: list[str]) -> None:
        self.ids = {word: number for number, word in enumerate(words)}

    @classmethod
    def from_pretrained(cls, path: str) -> WordTokenizer:
        return cls(load_vocabulary(Path(path)))

    def __call__(self, text: str) -> dict[str, list[int]]:
        pieces = PIECES.findall(text.lower())
        return {"input_ids": [START, *(i for piece in pieces for i in self._encode(piece)), END]}

    def get_vocab(self) -> dict[str, int]:
        return self.ids

    def _encode(self, piece: str) -> list[int]:
        if piece in self.ids:
            return [self.ids[piece]]
        return [self.ids.get(letter, UNKNOWN) for letter in piece]

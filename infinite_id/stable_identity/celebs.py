"""The celeb space: where the names of well-known people lie among CLIP's token embeddings.

StableIdentity, section 3.1. A name is two words of one token each. Learned words take the place
of such a name, and their rows follow the statistics of the names' rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

WORDS = 2
"""The number of words of a name, and of rows of a learned identity."""
FEWEST = 16
"""The least number of names that statistics are taken of."""
_SHIPPED = Path(__file__).with_name("names.txt")

Name = tuple[str, str]
Tokenise = Callable[[str], Sequence[int]]
"""Returns the tokens of a word, without start and end."""


@dataclass(frozen=True)
class CelebSpace:
    """Mean and unbiased standard deviation of names' rows by word and channel, each `(2, d)`."""

    mean: Tensor
    std: Tensor


class NamesError(ValueError):
    """Too few names to take statistics of; the message says what to do."""

    __module__ = "infinite_id"  # the page shows it; as a node pack's it would be a path


def read_names(text: str) -> list[Name]:
    """Read names of two words, separated by lines or commas; no text means the shipped list.

    Raises:
        NamesError: if a name does not have two words.
    """
    if not text.strip():
        text = _SHIPPED.read_text(encoding="utf-8")
    names = [part.lower().split() for part in re.split(r"[,\n]", text) if part.strip()]
    wrong = next((name for name in names if len(name) != WORDS), None)
    if wrong is not None:
        raise NamesError(
            f"The name '{' '.join(wrong)[:100]}' has {len(wrong)} words. Give names of a first and "
            "a last name, one a line."
        )
    return list(dict.fromkeys((first, last) for first, last in names))


def find_tokens(names: Sequence[Name], tokenise: Tokenise, table: Tensor) -> dict[Name, list[int]]:
    """Return the tokens of the names whose words are one token each, with trained rows.

    Args:
        table: `(vocabulary, d)`; a row of zeros belongs to a word that was never trained.
    """
    found = {}
    for name in names:
        tokens = [token for word in name for token in tokenise(word)]
        if len(tokens) == WORDS and bool(table[tokens].any(dim=1).all()):
            found[name] = tokens
    return found


def check_known(known: Collection[Name], names: Sequence[Name]) -> None:
    """Raises NamesError if fewer than `FEWEST` names are left."""
    if len(known) < FEWEST:
        raise NamesError(
            f"Of {len(names)} names, {len(known)} are known to this CLIP with both words as single "
            f"tokens, and statistics need {FEWEST}. Connect a model whose CLIP has the usual "
            "vocabulary, or give a list of names that this CLIP was taught in 'names', one a line."
        )


def measure(rows: Tensor) -> CelebSpace:
    """Measure the statistics of names' rows `(names, 2, d)`."""
    return CelebSpace(rows.mean(dim=0), rows.std(dim=0, correction=1))


def take_rows(table: Tensor, tokens: Sequence[Sequence[int]]) -> Tensor:
    """Return rows `(names, 2, d)` float32 of a table of token embeddings `(vocabulary, d)`."""
    return table[torch.tensor(tokens)].float()

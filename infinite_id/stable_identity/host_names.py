"""The celeb space of the host's text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from comfy.sd import CLIP

from ..words.host_text import list_encoders, read_table, tokenise_word
from .celebs import CelebSpace, Name, check_known, find_tokens, measure, take_rows


def measure_names(clip: CLIP, names: Sequence[Name]) -> dict[str, CelebSpace]:
    """Measure the celeb space of each text encoder over the names that all of them know.

    Raises:
        NamesError: if too few names are known.
    """
    tables = {key: read_table(x).cpu() for key, x in list_encoders(clip).items()}
    tokens = {
        key: find_tokens(names, partial(tokenise_word, clip, key), table)
        for key, table in tables.items()
    }
    shared = [name for name in names if all(name in found for found in tokens.values())]
    check_known(shared, names)
    return {
        key: measure(take_rows(table, [tokens[key][name] for name in shared]))
        for key, table in tables.items()
    }

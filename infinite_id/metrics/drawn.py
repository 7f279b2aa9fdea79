"""`drawn.jsonl`: a line says what a picture was made of; the last line of a picture counts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import to_json, to_json_lines, write_text

DRAWN = "drawn.jsonl"


@dataclass(frozen=True)
class Drawn:
    """How a picture was drawn.

    Attributes:
        recipe: a digest of all that it was made of.
        outdated: whether the plan asks for another one by now.
    """

    recipe: str
    outdated: bool = False


def read_drawn(folder: Path) -> dict[str, Drawn]:
    """Read all pictures, by their paths relative to the folder.

    A line that a kill cut off is ignored: its picture was not written yet.
    """
    path = folder / DRAWN
    text = path.read_text("utf-8", errors="replace") if path.exists() else ""
    return dict(_parse(text))


def _parse(text: str) -> Iterator[tuple[str, Drawn]]:
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            yield entry["picture"], Drawn(entry["recipe"], entry.get("outdated", False))
        except (ValueError, TypeError, KeyError):
            continue


def write_drawn(folder: Path, drawn: Mapping[str, Drawn]) -> None:
    """Write the file anew."""
    lines = to_json_lines(_describe(picture, own) for picture, own in drawn.items())
    write_text(folder / DRAWN, lines)


def add_drawn(folder: Path, picture: str, recipe: str) -> None:
    """Add a line. Raises UserError if it cannot be written."""
    path = folder / DRAWN
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(to_json(_describe(picture, Drawn(recipe))) + "\n")
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error}). Make room on the disk, or see to the "
            "folder's permissions, and give the same command again: it goes on from there."
        ) from error


def _describe(picture: str, drawn: Drawn) -> dict[str, Any]:
    entry: dict[str, Any] = {"picture": picture, "recipe": drawn.recipe}
    return {**entry, "outdated": True} if drawn.outdated else entry

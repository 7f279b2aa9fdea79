"""What is scored: pictures with their prompts, and photos of the people in them."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .drawn import read_drawn
from .plan import FILE, read_plan

_COLUMNS = ("file", "kind", "person", "method", "prompt", "seed")
_ONCE = ("file", "person", "method", "prompt")
"""No two pictures may have the same values in all of these columns."""


@dataclass(frozen=True)
class Picture:
    """One picture to score.

    Attributes:
        prompt: a name of the prompt; pictures that share person and prompt differ by their seed.
        text: the prompt itself, for CLIP-T; empty if nobody knows it.
        path: the file, which may be missing.
    """

    method: str
    person: str
    prompt: str
    seed: str
    text: str
    path: Path


@dataclass(frozen=True)
class Material:
    """Everything that is scored.

    Attributes:
        photos: of each person; the first is the one that the methods were given.
        surplus: picture files in the folder that no cell of the plan names.
        outdated: pictures that an earlier plan drew, and that are to be drawn anew.
    """

    pictures: Sequence[Picture]
    photos: Mapping[str, Sequence[Path]]
    surplus: Sequence[Path] = ()
    outdated: frozenset[Path] = frozenset()

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(picture.method for picture in self.pictures))


def read_material(source: Path) -> Material:
    """Read a folder with a plan.json, or a .csv file.

    The CSV's columns are file (from the CSV's folder on), kind ("picture" or "photo"), person,
    method, prompt (the text) and seed; photos need the first three, and the first photo of a person
    is the one that the methods were given.

    Raises:
        UserError: if it is neither, or names nothing to score.
    """
    if source.is_dir():
        return _read_folder(source)
    if source.suffix.lower() == ".csv" and source.is_file():
        return _read_csv(source)
    raise UserError(
        f"{source} is neither a folder with a {FILE} nor a .csv file. docs/metrics.md shows both."
    )


def _read_folder(folder: Path) -> Material:
    plan = read_plan(folder / FILE)
    pictures = [
        Picture(c.method, c.person, c.prompt, str(c.seed), plan.text(c), folder / c.path)
        for c in plan.cells()
    ]
    known = {picture.path for picture in pictures}
    there = [p for method in plan.methods for p in sorted((folder / method).rglob("*.png"))]
    surplus = [path for path in there if path not in known]
    old = {folder / name for name, drawn in read_drawn(folder).items() if drawn.outdated}
    photos = {name: person.photos for name, person in plan.people.items()}
    return Material(pictures, photos, surplus, frozenset(known & old))


def _read_csv(path: Path) -> Material:
    pictures: list[Picture] = []
    lines: dict[tuple[str, ...], int] = {}
    photos: dict[str, list[Path]] = {}
    for line, row in _read_rows(path):
        target = path.parent / row["file"]
        if row["kind"] == "photo":
            photos.setdefault(row["person"], []).append(target)
        elif row["kind"] == "picture":
            before = lines.setdefault(tuple(row[name] for name in _ONCE), line)
            if before != line:
                raise UserError(
                    f"{path}, line {line}: {row['file']} is the picture of line {before} again. "
                    "Name each once."
                )
            prompt = row["prompt"]
            method, seed = row["method"] or "pictures", row["seed"] or str(line)
            pictures.append(Picture(method, row["person"], prompt, seed, prompt, target))
        else:
            raise UserError(
                f"{path}, line {line}: the kind is '{row['kind']}'. Expected picture or photo."
            )
    if not pictures:
        raise UserError(f"{path} names no pictures. Their lines have the kind 'picture'.")
    return Material(pictures, photos)


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return each line's number and values. Raise UserError if it is no such file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_rows(path, csv.DictReader(file)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Expected a CSV file with commas, in UTF-8."
        ) from error


def _rows(path: Path, reader: "csv.DictReader[str]") -> Iterator[tuple[int, dict[str, str]]]:
    names = list(reader.fieldnames or ())
    given = set(names)
    if given - set(_COLUMNS) or len(given) < len(names) or not {"file", "kind", "person"} <= given:
        raise UserError(
            f"{path}: its first line names {', '.join(sorted(names)) or 'nothing'}. Expected the "
            f"columns {', '.join(_COLUMNS)}, each once; the first three must be there."
        )
    for row in reader:
        values = {name: (row.get(name) or "").strip() for name in _COLUMNS}
        where = f"{path}, line {reader.line_num}"
        if not values["file"] or not values["person"]:
            raise UserError(f"{where}: file and person must be there.")
        if None in row or not (values["seed"] or "0").isdecimal():
            raise UserError(
                f"{where} has more fields than columns, or the seed '{values['seed']}', which is "
                'no whole number. Set texts with commas in quotes: "a man, smiling".'
            )
        yield reader.line_num, values

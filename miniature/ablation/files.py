"""The ablation's pictures as files: `python -m infinite_id.metrics score` reads `pictures.csv`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..faces import write_png
from . import split
from .pipeline import Pixels

FILE = "pictures.csv"
OTHER_PHOTOS = 3
Row = dict[str, str]


def keep_photos(folder: Path, person: int) -> list[Row]:
    """Write the photo that the encoder sees, then other photos of that person."""
    others = split.render_each([person] * OTHER_PHOTOS, split.portraits(person)[:OTHER_PHOTOS])
    rows = []
    for n, pixels in enumerate([split.photo(person), *others]):
        file = Path("photos", str(person), f"{n}.png")
        _write(folder / file, pixels)
        rows.append({"file": file.as_posix(), "kind": "photo", "person": str(person)})
    return rows


def keep_pictures(
    folder: Path, method: str, person: int, prompts: Sequence[str], pictures: Pixels
) -> list[Row]:
    """Write pictures `(n, h, w, 3)`, one for each prompt."""
    rows = []
    for n, (prompt, pixels) in enumerate(zip(prompts, pictures, strict=True)):
        file = Path(method, str(person), f"{n}.png")
        _write(folder / file, pixels)
        row = {"file": file.as_posix(), "kind": "picture", "person": str(person)}
        rows.append(row | {"method": method, "prompt": prompt, "seed": str(person)})
    return rows


def write_table(folder: Path, rows: Iterable[Row]) -> None:
    partial = folder / f".{FILE}.part"
    with partial.open("w", encoding="utf-8", newline="") as file:
        columns = ("file", "kind", "person", "method", "prompt", "seed")
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(folder / FILE)


def _write(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, pixels)

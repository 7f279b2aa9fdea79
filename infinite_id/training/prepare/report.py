"""`report.html`: how many photos, which are not used and why, what the others look like."""

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from torch import Tensor

from ...files import write_text

Record = dict[str, Any]
Thumbnails = Callable[[Sequence[str]], Mapping[str, Tensor]]
_TEMPLATE = Path(__file__).with_name("report.html")
_PEOPLE, _PHOTOS, _REJECTED = 40, 8, 24
"""What the grids show at most: people, photos of each, photos of each kind that are not used."""
_BARS = 12


def describe_counts(rejected: Sequence[Record]) -> str:
    """Such as '12 small face, 3 blurred', most frequent first."""
    return ", ".join(f"{count} {kind}" for kind, count in _count(rejected))


def _count(records: Sequence[Record]) -> list[tuple[str, int]]:
    counts = Counter(record["kind"] for record in records)
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def write_report(
    path: Path, kept: Sequence[Record], rejected: Sequence[Record], thumbnails: Thumbnails
) -> None:
    """Write one page that needs no other file and no network.

    Args:
        thumbnails: finds photos' thumbnails by the photos' names.
    """
    from jinja2 import Environment

    people = _group(kept, "person", _PHOTOS)
    kinds = _group(rejected, "kind", _REJECTED)
    shown = dict(sorted(people.items())[:_PEOPLE])
    names = [r["name"] for group in (shown, kinds) for own in group.values() for r in own]
    pictures = {name: _as_data(x) for name, x in thumbnails(names).items()}
    # Names of files and people are strangers' text: autoescape keeps them text.
    template = Environment(autoescape=True).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    photos_each = Counter(Counter(record["person"] for record in kept).values())
    page = template.render(
        photos=len(kept) + len(rejected),
        kept=len(kept),
        people=len(people),
        counts=_count(rejected),
        shown=shown,
        kinds=[(kind, count, kinds[kind]) for kind, count in _count(rejected)],
        pictures=pictures,
        photos_each=sorted(photos_each.items()),
        faces=_histogram([record["face"] for record in kept]),
        sharpness=_histogram([record["sharpness"] for record in kept]),
    )
    write_text(path, page)


def _group(records: Sequence[Record], key: str, most: int) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        own = groups.setdefault(record[key], [])
        if len(own) < most:
            own.append(record)
    return groups


def _histogram(values: Sequence[float]) -> list[tuple[str, int, float]]:
    """Bars: the range as text, how many, and the length relative to the longest."""
    if not values:
        return []
    low, high = min(values), max(values)
    width = (high - low) / _BARS or 1.0
    counts = Counter(min(int((value - low) / width), _BARS - 1) for value in values)
    longest = max(counts.values())
    return [
        (f"{low + n * width:.0f} to {low + (n + 1) * width:.0f}", counts[n], counts[n] / longest)
        for n in range(_BARS)
    ]


def _as_data(picture: Tensor) -> str:
    """A JPEG as a data address; not in base64, which the registry forbids in published code."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "JPEG", quality=85)
    return "data:image/jpeg," + quote_from_bytes(file.getvalue(), safe="")

"""What is known of people by their own photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .faces import FaceNet
from .features import Seen, Store
from .scores import Vector, among, average, similarities


@dataclass(frozen=True)
class Baseline:
    """What is normal for a person, by one face net.

    Attributes:
        own: the mean similarity of the person's photos among themselves; NaN for a single one.
        strangers: the mean similarity of the person's given photo to those of other people.
    """

    own: float
    strangers: float


@dataclass(frozen=True)
class Known:
    """A person's photos as one face net sees them.

    Attributes:
        reference: the face in the photo that the methods were given.
        others: the mean of the other photos.
    """

    reference: Vector | None
    others: Vector | None
    baseline: Baseline


@dataclass
class Problems:
    """Collects sentences, each once."""

    said: dict[str, None] = field(default_factory=dict)

    def add(self, sentence: str) -> None:
        self.said[sentence] = None


def show(path: Path, root: Path) -> str:
    """Return a path relative to a folder, as text that can be written whatever its bytes are."""
    shown = path.relative_to(root) if path.is_relative_to(root) else path
    return to_text(shown.as_posix())


def to_text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def know(
    net: FaceNet,
    photos: Mapping[str, Sequence[Path]],
    seen: Seen,
    store: Store,
    problems: Problems,
    root: Path,
) -> dict[str, Known]:
    """Each person's faces, and what is normal for them."""
    found: dict[str, list[Vector | None]] = {}
    for person, paths in photos.items():
        found[person] = []
        for path in paths:
            content = seen.contents.get(path)
            vector = None if content is None else store.get(net.digest, content)
            if content is not None and vector is None:
                problems.add(f"{show(path, root)}: no face was found in this photo of {person}")
            if vector is not None and any(_is_same(vector, v) for v in found[person]):
                problems.add(f"{show(path, root)}: a second copy of a photo of {person}")
                continue
            found[person].append(vector)
    given = {person: own[0] for person, own in found.items() if own[0] is not None}
    return {
        person: _describe(net, own, [v for name, v in given.items() if name != person])
        for person, own in found.items()
    }


def _describe(net: FaceNet, own: Sequence[Vector | None], strangers: Sequence[Vector]) -> Known:
    reference, *rest = own
    usable = [vector for vector in own if vector is not None]
    others = [vector for vector in rest if vector is not None]
    among_own = float(among(np.stack(usable), net.measure).mean()) if len(usable) > 1 else np.nan
    to_strangers = np.nan
    if reference is not None and strangers:
        to_strangers = float(similarities(strangers, reference, net.measure).mean())
    return Known(
        reference,
        average(np.stack(others), net.measure) if others else None,
        Baseline(among_own, to_strangers),
    )


def _is_same(vector: Vector, other: Vector | None) -> bool:
    return other is not None and np.array_equal(vector, other)

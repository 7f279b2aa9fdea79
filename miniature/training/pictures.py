"""The drawn training pictures of all nets, kept on disk.

Four pictures in a row show the same person, each in a scene of its own. Every fourth such group
shows one of the people whom captions call by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..faces import render
from ..world.canvas import SIDE
from ..world.captions import caption
from ..world.identity import draw_identity
from ..world.names import NAMES
from ..world.scene import draw_scene
from . import workers

CHUNK = 1024
ARRAYS = ("landmarks", "boxes", "people", "scenes")
PIXELS = "pixels.rgb"  # of all chunks
PER_PERSON = 4
NAMED = 4  # one in this many groups shows a person with a name
HELD_OUT = 1_000_000  # people and scenes from this seed on are never trained on


@dataclass(frozen=True, eq=False)
class Pictures:
    pixels: NDArray[np.uint8]  # (n, 256, 256, 3) RGB
    landmarks: NDArray[np.float32]  # (n, 5, 2) in pixels
    boxes: NDArray[np.float32]  # (n, 4) in pixels
    people: NDArray[np.int64]  # (n,) seeds
    scenes: NDArray[np.int64]  # (n,) seeds


def draw(people: Iterable[int], scenes: Iterable[int]) -> Pictures:
    """Draw the n-th person in the n-th scene; both are seeds."""
    pairs = list(zip(people, scenes, strict=True))
    pictures = [render(draw_identity(person), draw_scene(scene)) for person, scene in pairs]
    return Pictures(
        pixels=np.stack([p.pixels for p in pictures]),
        landmarks=np.stack([p.landmarks for p in pictures]).astype(np.float32),
        boxes=np.stack([p.box for p in pictures]).astype(np.float32),
        people=np.array([person for person, _ in pairs]),
        scenes=np.array([scene for _, scene in pairs]),
    )


def held_out(people: int) -> Pictures:
    """Draw four pictures each of people that no net was trained on."""
    scenes = range(HELD_OUT * PER_PERSON, (HELD_OUT + people) * PER_PERSON)
    return draw((scene // PER_PERSON for scene in scenes), scenes)


def shown(number: int) -> int:
    """Return the person in a training picture, given its number."""
    group = number // PER_PERSON
    return group // NAMED % len(NAMES) if group % NAMED == 0 else len(NAMES) + group


def captions(pictures: Pictures) -> list[str]:
    return [
        caption(person, draw_identity(person), draw_scene(scene))
        for person, scene in zip(pictures.people.tolist(), pictures.scenes.tolist(), strict=True)
    ]


def make(work: Path, count: int) -> None:
    """Draws those of the first `count` pictures that are missing."""
    make_chunks(work / "pictures", count, shown, first_scene=0)


def make_chunks(folder: Path, count: int, person: Callable[[int], int], first_scene: int) -> None:
    """Draw chunks. Picture n shows `person(n)`; a chunk's `.npz` is written after its pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in workers.share(range(0, count, CHUNK)):
        path = folder / f"{first // CHUNK:04d}.npz"
        if path.exists():
            continue
        numbers = range(first, min(first + CHUNK, count))
        pictures = draw(map(person, numbers), (first_scene + n for n in numbers))
        (folder / PIXELS).touch()
        with (folder / PIXELS).open("r+b") as file:
            file.seek(first * pictures.pixels[0].nbytes)
            file.write(pictures.pixels.data)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **{name: getattr(pictures, name) for name in ARRAYS})
        partial.rename(path)


def chunk_paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("????.npz"))


def numbers_in(chunk: Path) -> range:
    """Return the numbers of the pictures of a chunk."""
    first = int(chunk.stem) * CHUNK
    return range(first, first + len(np.load(chunk)["people"]))


def load(folder: Path, most: int | None = None) -> Pictures:
    """Load the first pictures of a folder; the pixels stay on disk until they are read."""
    parts = [np.load(path) for path in chunk_paths(folder)]
    arrays = {name: np.concatenate([part[name] for part in parts])[:most] for name in ARRAYS}
    shape = (len(arrays["people"]), SIDE, SIDE, 3)
    return Pictures(pixels=np.memmap(folder / PIXELS, np.uint8, "c", shape=shape), **arrays)

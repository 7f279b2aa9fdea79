"""The drawn pictures that everything is trained on, kept in chunks on disk.

Picture n shows person n // 4 in scene n, so that every person is seen in four scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..faces import render
from ..world.identity import draw_identity
from ..world.scene import draw_scene
from . import workers

CHUNK = 1024
ARRAYS = ("pixels", "landmarks", "boxes", "people", "scenes")
PER_PERSON = 4
HELD_OUT = 1_000_000  # people and scenes from this seed on are never trained on


@dataclass(frozen=True, eq=False)
class Pictures:
    pixels: NDArray[np.uint8]  # (n, 128, 128, 3) RGB
    landmarks: NDArray[np.float32]  # (n, 5, 2) in pixels
    boxes: NDArray[np.float32]  # (n, 4) in pixels
    people: NDArray[np.int64]  # (n,)
    scenes: NDArray[np.int64]  # (n,)
    captions: list[str]


def draw(numbers: range) -> Pictures:
    pictures = [render(draw_identity(n // PER_PERSON), draw_scene(n)) for n in numbers]
    return Pictures(
        pixels=np.stack([p.pixels for p in pictures]),
        landmarks=np.stack([p.landmarks for p in pictures]).astype(np.float32),
        boxes=np.stack([p.box for p in pictures]).astype(np.float32),
        people=np.array([n // PER_PERSON for n in numbers]),
        scenes=np.array(numbers),
        captions=[p.caption for p in pictures],
    )


def held_out(people: int) -> Pictures:
    """Four pictures each of people that no net was trained on."""
    first = HELD_OUT * PER_PERSON
    return draw(range(first, first + people * PER_PERSON))


def make(work: Path, chunks: int) -> None:
    """Draws the chunks that are missing."""
    folder = work / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for chunk in workers.share(range(chunks)):
        path = folder / f"{chunk:04d}.npz"
        if not path.exists():
            save(draw(range(chunk * CHUNK, (chunk + 1) * CHUNK)), path)


def save(pictures: Pictures, path: Path) -> None:
    partial = path.with_suffix(".partial.npz")
    arrays = {name: getattr(pictures, name) for name in ARRAYS}
    np.savez(partial, **arrays, captions=np.array(pictures.captions))
    partial.rename(path)


def chunk_paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("????.npz"))


def load(paths: list[Path]) -> Pictures:
    parts = [np.load(path) for path in paths]
    return Pictures(
        **{name: np.concatenate([part[name] for part in parts]) for name in ARRAYS},
        captions=[str(text) for part in parts for text in part["captions"]],
    )

"""Renders people of the miniature world.

`python -m miniature.faces --sheet OUT.png` writes a contact sheet: a person a row, in all styles.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .world import body, hair, head
from .world.canvas import Canvas, Frame, Points
from .world.identity import Identity, draw_identity
from .world.places import draw_place
from .world.scene import Scene, caption, draw_scene
from .world.styles import SIDE, STYLES, Drawing, Image

FINE = 2  # the subject is drawn at so many times the picture's size


@dataclass(frozen=True, eq=False)
class Picture:
    """A rendered person and the truth about it; landmarks and box are in pixels.

    `pixels` is `(128, 128, 3)` RGB. The box is left, top, right, bottom around the face.
    """

    pixels: NDArray[np.uint8]
    identity: Identity
    scene: Scene
    landmarks: Points
    box: Points

    @property
    def caption(self) -> str:
        return caption(self.identity, self.scene)


def render(identity: Identity, scene: Scene) -> Picture:
    frame = Frame.at(scene.x * SIDE, scene.y * SIDE, scene.scale * SIDE, scene.tilt)
    face = head.Face(identity, scene)
    subject, edges = _draw_subject(face, scene)
    drawing = Drawing(
        subject=subject[..., :3],
        alpha=subject[..., 3:] / np.float32(255),
        edges=edges,
        light=_light(scene, frame, face),
        place=draw_place(scene),
        scene=scene,
    )
    image = _tone(STYLES[scene.style](drawing), scene)
    outline = frame.place(face.outline())
    return Picture(
        pixels=np.clip(image, 0, 255).astype(np.uint8),
        identity=identity,
        scene=scene,
        landmarks=frame.place(face.landmarks()),
        box=np.concatenate([outline.min(0), outline.max(0)]),
    )


def _draw_subject(face: head.Face, scene: Scene) -> tuple[Image, Image]:
    """The person `(128, 128, 4)`, alpha last, and the lines `(128, 128, 1)` of the drawing."""
    fine = np.zeros((SIDE * FINE, SIDE * FINE, 4), np.uint8)
    place = scene.x * SIDE * FINE, scene.y * SIDE * FINE, scene.scale * SIDE * FINE
    upper = Canvas(fine, Frame.at(*place, scene.tilt))
    lower = Canvas(fine, Frame.at(*place, scene.tilt * 0.3))
    hair.draw_back(upper, face)
    body.draw_body(lower, face)
    head.draw_skull(upper, face)
    head.draw_features(upper, face)
    hair.draw_front(upper, face)
    subject: Any = cv2.resize(fine, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return subject.astype(np.float32), _edges(fine)


def _edges(fine: NDArray[np.uint8]) -> Image:
    gradient: Any = cv2.morphologyEx(fine, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    red, green, blue, alpha = cv2.split(gradient)
    steepest = cv2.max(cv2.max(red, green), cv2.max(blue, alpha))
    lines: Any = cv2.resize(steepest, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return (np.clip(lines.astype(np.float32) - 14, 0, 90) / 90)[..., None]


# Soft lights and shadows on a head: centre x, y, radii, strength.
_SPOTS = (
    (0.0, 1.2, 0.55, 0.18, -0.34),  # under the chin
    (-0.36, -0.1, 0.24, 0.14, -0.1),
    (0.36, -0.1, 0.24, 0.14, -0.1),
    (0.0, -0.45, 0.4, 0.22, 0.09),
    (-0.42, 0.25, 0.2, 0.16, 0.07),
    (0.42, 0.25, 0.2, 0.16, 0.07),
    (0.0, 0.86, 0.2, 0.09, 0.05),
)


def _light(scene: Scene, frame: Frame, face: head.Face) -> Image:
    """How bright each pixel of the person is, `(128, 128, 1)`; computed at half the size."""
    half = SIDE // 2
    steps = np.arange(half) * 2.0 + 0.5
    grid = np.stack(np.meshgrid(steps, steps), axis=-1)
    x, y = np.moveaxis(frame.inverse(grid.reshape(-1, 2)), -1, 0)
    wide = np.where(y < 1.15, face.half, 1.5)
    side, height = np.clip(x / wide, -1.2, 1.2), np.clip(y, -1.0, 1.3)
    light = 1.04 + 0.26 * scene.light * side - 0.1 * height - 0.12 * side**2
    for cx, cy, rx, ry, strength in _SPOTS:
        light += strength * np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
    small = light.reshape(half, half).astype(np.float32)
    large: Any = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return large[..., None]


def _tone(image: Image, scene: Scene) -> Image:
    """Brightness of the whole picture, and a warm or cold cast."""
    cast = 0.04 * scene.warmth * np.array([1.0, 0.0, -1.0])
    strength = 0.3 if scene.style == "pencil" else 1.0
    return image * (1 + strength * (scene.brightness - 1 + cast)).astype(np.float32)


def sheet(rows: list[list[Picture]]) -> NDArray[np.uint8]:
    return np.vstack([np.hstack([picture.pixels for picture in row]) for row in rows])


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    cv2.imwrite(str(path), image[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a contact sheet of drawn people.")
    parser.add_argument("--sheet", type=Path, required=True)
    parser.add_argument("--people", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    styles = [style for style in STYLES for _ in range(3)]
    start = time.perf_counter()
    rows = [
        [
            render(
                draw_identity(options.seed + person), draw_scene(len(styles) * person + i, style)
            )
            for i, style in enumerate(styles)
        ]
        for person in range(options.people)
    ]
    each = (time.perf_counter() - start) / (len(styles) * options.people)
    write_png(options.sheet, sheet(rows))
    print(f"{options.sheet}: {1e3 * each:.2f} ms a picture; the first: {rows[0][0].caption}")


if __name__ == "__main__":
    main()

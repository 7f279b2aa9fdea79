"""Renders people of the miniature world.

`python -m pack.miniature.faces --sheet OUT.png` writes a contact sheet: a person
a row, in all styles.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .world import body, features, hair, head
from .world.canvas import SIDE, Canvas, Frame, Points
from .world.identity import Identity, draw_identity
from .world.places import draw_place
from .world.scene import Scene, draw_scene
from .world.styles import STYLES, Drawing, Image


@dataclass(frozen=True, eq=False)
class Picture:
    """A rendered person with its true landmarks and box, in pixels.

    `pixels` is `(256, 256, 3)` RGB. The box is left, top, right, bottom around the face.
    """

    pixels: NDArray[np.uint8]
    identity: Identity
    scene: Scene
    landmarks: Points
    box: Points

    def resized(self, side: int) -> Picture:
        """Return the same picture at a smaller size."""
        small: Any = cv2.resize(self.pixels, (side, side), interpolation=cv2.INTER_AREA)
        scale = side / len(self.pixels)
        return replace(self, pixels=small, landmarks=self.landmarks * scale, box=self.box * scale)


def render(identity: Identity, scene: Scene) -> Picture:
    frame = Frame.at(scene.x * SIDE, scene.y * SIDE, scene.scale * SIDE, scene.tilt)
    face = head.Face(identity, scene)
    subject, edges = _draw_subject(face, frame)
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


def _draw_subject(face: head.Face, frame: Frame) -> tuple[Image, Image]:
    """Draw the person `(256, 256, 4)`, alpha last, and the lines `(256, 256, 1)` of the drawing."""
    pixels, scene = np.zeros((SIDE, SIDE, 4), np.uint8), face.scene
    x, y = frame.origin
    upper = Canvas(pixels, frame)
    lower = Canvas(pixels, Frame.at(x, y, frame.scale, scene.tilt * 0.3))
    hair.draw_back(upper, face)
    body.draw_body(lower, face)
    head.draw_skull(upper, face)
    hair.draw_shade(upper, face)
    features.draw_features(upper, face)
    hair.draw_front(upper, face)
    eyes = frame.place(face.landmarks()[:2])
    return pixels.astype(np.float32), _edges(pixels) * _outside(eyes, frame.scale)


def _outside(eyes: Points, unit: float) -> Image:
    """Return a mask `(256, 256, 1)` that keeps lines off the eyes, which have their own."""
    steps, near = np.arange(SIDE), np.zeros((SIDE, SIDE))
    for x, y in eyes:
        across = np.exp(-(((steps - x) / (0.24 * unit)) ** 2))
        down = np.exp(-(((steps - y) / (0.2 * unit)) ** 2))
        near += np.outer(down, across)
    return (1 - 0.95 * np.clip(near, 0, 1)).astype(np.float32)[..., None]


def _edges(pixels: NDArray[np.uint8]) -> Image:
    gradient: Any = cv2.morphologyEx(pixels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    red, green, blue, alpha = cv2.split(gradient)
    lines: Any = cv2.max(cv2.max(red, green), cv2.max(blue, alpha))
    return (np.clip(lines.astype(np.float32) - 24, 0, 90) / 90)[..., None]


# Soft lights and shadows on a head: centre x, y, radii, strength.
_SPOTS = (
    (-0.4, 0.62, 0.2, 0.3, -0.06),  # below the cheekbones
    (0.4, 0.62, 0.2, 0.3, -0.06),
)


def _light(scene: Scene, frame: Frame, face: head.Face) -> Image:
    """How bright each pixel of the person is, `(256, 256, 1)`; computed at a quarter."""
    small_side = SIDE // 4
    steps = np.arange(small_side) * 4.0 + 1.5
    grid = np.stack(np.meshgrid(steps, steps), axis=-1)
    x, y = np.moveaxis(frame.inverse(grid.reshape(-1, 2)), -1, 0)
    wide = np.where(y < 1.15, face.half, 1.5)
    side, height = np.clip(x / wide, -1.2, 1.2), np.clip(y, -1.0, 1.3)
    light = 1.05 + 0.2 * scene.light * side - 0.08 * height - 0.16 * side**2
    for cx, cy, rx, ry, strength in _SPOTS:
        light += strength * np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
    small = light.reshape(small_side, small_side).astype(np.float32)
    large: Any = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return large[..., None]


def _tone(image: Image, scene: Scene) -> Image:
    """Change the brightness of the whole picture, and add a warm or cold cast."""
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
    parser.add_argument("--each", type=int, default=1, help="pictures in each style")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    styles = [style for style in STYLES for _ in range(options.each)]
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
    print(f"{options.sheet}: {1e3 * each:.2f} ms a picture")


if __name__ == "__main__":
    main()

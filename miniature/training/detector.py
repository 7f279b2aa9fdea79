"""Stage `detector`: a small fully convolutional face detector with five landmarks.

One net looks at the picture in three sizes: whole, halved and quartered. For insightface's
SCRFD class these are the strides 8, 16 and 32. In each size the net finds faces 32 to 112 px high.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..world import canvas
from . import workers
from .export import write_detector
from .lesson import Recipe, Weights, averaged_weights
from .lesson import train as train_net
from .pictures import Pictures, held_out, load

STRIDE, SIDE = 8, 160
RECIPE = Recipe(rate=2e-3, average=0.99, batch=48)
SMALLEST, LARGEST = 32.0, 112.0  # face heights that the net is to find
HALF = canvas.SIDE // 2  # at full size the pictures' faces are too high for the net
CENTRAL = 0.22  # share of a face's width and height: cells this near its centre are to find it
OUTPUTS = 15  # a score, four distances, five points


def net() -> nn.Sequential:
    """`(n, 3, h, w)` RGB in -1..1 -> `(n, 15, h / 8, w / 8)`, lengths in units of 8 px."""
    return nn.Sequential(
        *_layer(3, 16, stride=2),
        *_layer(16, 32, stride=2),
        *_layer(32, 48, stride=2),
        *_layer(48, 48, dilation=1),
        *_layer(48, 48, dilation=2),
        *_layer(48, 48, dilation=3),
        *_layer(48, 48, dilation=1),
        nn.Conv2d(48, OUTPUTS, 1),
    )


def _layer(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def train(folder: Path, samples: int) -> None:
    torch.manual_seed(0)
    made = net()
    torch.nn.init.constant_(made[-1].bias[0], -3.0)  # type: ignore[index]  # faces are rare
    lesson = _Faces(load(folder / "pictures", 8192))

    def show(_: int, averaged: Weights) -> dict[str, float]:
        judged = net()
        judged.load_state_dict(averaged)
        return accuracy(judged.eval())

    train_net(folder, "detector", made, RECIPE, lesson, samples, show, samples)
    if workers.number() == 0:
        write_detector(folder, trained(folder))


class _Faces:
    """The net is to find the face in cut and scaled pictures."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def draw(self, first: int, count: int) -> tuple[Tensor, ...]:
        """Return pixels, boxes and landmarks."""
        return _scenes(self.pictures, count, np.random.default_rng([first, 7]))

    def loss(self, net: nn.Module, pixels: Tensor, boxes: Tensor, points: Tensor) -> Tensor:
        return _loss(net(pixels), boxes, points)


def trained(folder: Path) -> nn.Sequential:
    made = net()
    made.load_state_dict(averaged_weights(folder, "detector"))
    return made.eval()


def _scenes(
    pictures: Pictures, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Put pictures of random sizes on a black square; return pixels, boxes and landmarks."""
    numbers = rng.integers(len(pictures.pixels), size=count)
    pixels = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    places = np.empty((count, 7, 2), np.float32)
    for i, n in enumerate(numbers):
        zoom = 2.0 ** rng.uniform(-1.6, 1.2)
        free = SIDE - HALF * zoom
        shift = rng.uniform(min(0.0, free), max(0.0, free), 2)
        matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
        cv2.warpAffine(_halve(pictures.pixels[n]), matrix, (SIDE, SIDE), dst=pixels[i])
        corners = pictures.boxes[n].reshape(2, 2)
        places[i] = np.vstack([corners, pictures.landmarks[n]]) / 2 * zoom + shift
    where = torch.from_numpy(places)
    return as_input(pixels), where[:, :2].flatten(1), where[:, 2:].flatten(1)


def _halve(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.resize(picture, (HALF, HALF), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def as_input(pixels: NDArray[np.uint8]) -> Tensor:
    """Return insightface's input for the net: RGB, (x - 127.5) / 128."""
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127.5) / 128


def _loss(output: Tensor, boxes: Tensor, points: Tensor) -> Tensor:
    """Return focal loss of the scores, plus L1 of the lengths in cells on a face's middle."""
    output = output.permute(0, 2, 3, 1)
    cells = torch.arange(output.shape[1], device=output.device) * float(STRIDE)
    centres = torch.stack(torch.meshgrid(cells, cells, indexing="xy"), dim=-1)[None]
    low, high = boxes[:, None, None, :2], boxes[:, None, None, 2:]
    off = (centres - (low + high) / 2).abs() / (high - low)
    tall = (high - low)[..., 1]
    found = (off.amax(-1) < CENTRAL) & (tall > SMALLEST) & (tall < LARGEST)
    lengths = torch.cat([centres - low, high - centres], dim=-1)
    offsets = points[:, None, None] - centres.repeat(1, 1, 1, 5)
    truth = torch.cat([lengths, offsets], dim=-1) / STRIDE
    wrong = (output[..., 1:] - truth).abs().mean(-1)[found].mean() if found.any() else 0.0
    bce = F.binary_cross_entropy_with_logits(output[..., 0], found.float(), reduction="none")
    focal = ((1 - torch.exp(-bce)) ** 2 * bce).sum() / max(1, int(found.sum()))
    return focal + 0.5 * wrong


@torch.inference_mode()
def accuracy(model: nn.Module, people: int = 50) -> dict[str, float]:
    """Measure error and score of the best cell, on whole pictures of people never trained on."""
    pictures = held_out(people)
    halved = np.stack([_halve(picture) for picture in pictures.pixels])
    output = model(as_input(halved)).permute(0, 2, 3, 1)
    best = output[..., 0].flatten(1).argmax(1)
    rows, columns = best // output.shape[2], best % output.shape[2]
    chosen = output[torch.arange(len(best)), rows, columns]
    cells = torch.stack([columns, rows], dim=1).float() * STRIDE
    points = chosen[:, 5:].reshape(-1, 5, 2) * STRIDE + cells[:, None]
    missed = (2 * points - torch.from_numpy(pictures.landmarks)).norm(dim=-1).mean()
    score = chosen[:, 0].sigmoid().mean()
    return {"landmarks_off": float(missed), "mean_score": float(score)}

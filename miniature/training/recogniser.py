"""Stage `recogniser`: a net that turns an aligned face, 112 px, into 512 features of the person.

It is trained on pairs of different pictures of one person: each crop of a batch must find its pair
(InfoNCE over cosine similarities). It is exported in the form that insightface's ArcFaceONNX reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from insightface.utils.face_align import estimate_norm
from numpy.typing import NDArray
from torch import Tensor, nn

from . import workers
from .export import write_recogniser
from .lesson import Recipe, Weights, averaged_weights
from .lesson import train as train_net
from .pictures import PER_PERSON, Pictures, held_out, load

SIDE, FEATURES = 112, 512
PEOPLE = 48  # in a process's part of a step, two pictures of each
RECIPE = Recipe(rate=2e-3, average=0.99, batch=2 * 2 * PEOPLE)
TEMPERATURE = 0.07
JITTER = 2.4  # pixels by which a detector may miss a landmark


def net(features: int = FEATURES) -> nn.Sequential:
    """`(n, 3, 112, 112)` RGB in -1..1 -> `(n, features)`."""
    return nn.Sequential(
        *_layer(3, 24, 2),  # 56
        *_layer(24, 32, 2),  # 28
        *_layer(32, 32, 1),
        *_layer(32, 64, 2),  # 14
        *_layer(64, 64, 1),
        *_layer(64, 128, 2),  # 7
        *_layer(128, 128, 1),
        nn.Conv2d(128, 8, 1),
        nn.Flatten(),
        nn.Linear(8 * 7 * 7, features),
    )


def _layer(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def crop(
    picture: NDArray[np.uint8], landmarks: NDArray[Any], side: int = SIDE
) -> NDArray[np.uint8]:
    """InsightFace's alignment: five landmarks to their places by a similarity transform."""
    matrix = estimate_norm(landmarks, side)
    return cv2.warpAffine(picture, matrix, (side, side))  # type: ignore[return-value]


def train(folder: Path, samples: int) -> None:
    torch.manual_seed(0)
    teach(folder, "recogniser", samples, folder / "pictures")
    if workers.number() == 0:
        write_recogniser(folder, trained(folder))


def teach(folder: Path, name: str, samples: int, source: Path, features: int = FEATURES) -> None:
    """Train a net of this kind on a folder of pictures."""

    def show(_: int, averaged: Weights) -> dict[str, float]:
        judged = net(features)
        judged.load_state_dict(averaged)
        return verification(judged.eval())

    train_net(folder, name, net(features), RECIPE, _Pairs(load(source)), samples, show, samples)


class _Pairs:
    """Each picture is to find another of the same person among the others'."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def draw(self, first: int, count: int) -> tuple[Tensor]:
        return (_pairs(self.pictures, first, count // 2),)

    def loss(self, net: nn.Module, crops: Tensor) -> Tensor:
        return _contrast(F.normalize(net(crops), dim=1))


def _pairs(pictures: Pictures, number: int, count: int) -> Tensor:
    """Return `(2 * count, 3, 112, 112)` in -1..1: one picture of each person, then the others."""
    rng = np.random.default_rng([number, 6])
    groups = rng.permutation(len(pictures.pixels) // PER_PERSON)[: 2 * count]
    _, first = np.unique(pictures.people[groups * PER_PERSON], return_index=True)
    groups = groups[np.sort(first)[:count]]  # of as many people
    shots = np.stack([rng.choice(PER_PERSON, 2, replace=False) for _ in groups], axis=1)
    crops = []
    for n in (groups * PER_PERSON + shots).ravel():
        landmarks = pictures.landmarks[n] + rng.normal(0, JITTER, (5, 2))
        crops.append(crop(pictures.pixels[n], landmarks).astype(np.float32))
    gains = rng.uniform(0.85, 1.15, (len(crops), 1, 1, 1)).astype(np.float32)
    batch = np.stack(crops) * gains
    return _tensor(batch + rng.normal(0, 3, batch.shape).astype(np.float32))


def _tensor(crops: NDArray[Any]) -> Tensor:
    return (torch.from_numpy(crops).permute(0, 3, 1, 2).float() - 127.5) / 127.5


def _contrast(features: Tensor) -> Tensor:
    similar = features @ features.T / TEMPERATURE
    similar = similar - torch.eye(len(features), device=features.device) * 1e4
    pair = torch.arange(len(features), device=features.device).roll(len(features) // 2)
    return F.cross_entropy(similar, pair)


def trained(folder: Path) -> nn.Sequential:
    made = net()
    made.load_state_dict(averaged_weights(folder, "recogniser"))
    return made.eval()


@torch.inference_mode()
def embed(model: nn.Module, pixels: NDArray[np.uint8], landmarks: NDArray[Any]) -> Tensor:
    """Return unit features `(n, 512)` of whole pictures."""
    crops = [crop(p, marks) for p, marks in zip(pixels, landmarks, strict=True)]
    return F.normalize(model(_tensor(np.stack(crops))), dim=1)


def verification(model: nn.Module, people: int = 100) -> dict[str, float]:
    """Measure how well the net tells if two pictures show one person, on held-out people."""
    pictures = held_out(people)
    features = embed(model, pictures.pixels, pictures.landmarks)
    similar = features @ features.T
    from ...infinite_id.metrics.scores import same_and_different

    own, other = same_and_different(features.numpy(), pictures.people)
    thresholds = np.linspace(-1, 1, 401)
    right = [((own > t).mean() + (other <= t).mean()) / 2 for t in thresholds]
    nearest = (similar - 2 * torch.eye(len(features))).argmax(1)
    found = (pictures.people[nearest.numpy()] == pictures.people).mean()
    return {
        "same": float(own.mean()),
        "different": float(other.mean()),
        "verification": float(max(right)),
        "nearest_is_same": float(found),
    }

"""Stage `clip_vision`: the small image encoder, trained to name a person's features.

Its input is a face crop from hairline to neck, 224 px, as the pack makes it. In training only,
heads predict the person's features from the mean of the *last* hidden layer. Infinite-ID uses this
layer's tokens: a cross-attention over them can find all that their mean holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from insightface.utils.face_align import estimate_norm
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .. import nets
from ..shapes import clip_vision_config
from ..world.identity import BEARDS, CUTS, EYES, GLASSES, HAIR, Identity, draw_identity
from . import text, workers
from .lesson import Recipe, Weights
from .lesson import train as train_net
from .pictures import Pictures, held_out, load
from .start import initialise

FILE = "miniature-clip-vision.safetensors"
SIDE = 224
RECIPE = Recipe(rate=1e-3, average=0.99, batch=48)
LOOSE = 0.65  # share of the crop's side that ArcFace's tighter crop takes
JITTER = 2.4  # pixels by which a detector may miss a landmark
CHOICES: dict[str, tuple[Any, ...]] = {
    "woman": (False, True),
    "old": (False, True),
    "hair": tuple(HAIR),
    "cut": tuple(dict.fromkeys(cut for cuts in CUTS.values() for cut, _ in cuts)),
    "eyes": tuple(EYES),
    "glasses": tuple(name for name, _ in GLASSES),
    "beard": tuple(name for name, _ in BEARDS),
}
AMOUNTS = (
    *("skin", "volume", "eye_spacing", "eye_size", "width", "jaw", "chin", "nose_length"),
    *("nose_width", "mouth_width", "lips", "brow_thickness", "brow_slant", "ears"),
)


class Namer(nn.Module):
    """The encoder with a head for every feature; the amounts come last."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nets.clip_vision()
        for part in (self.encoder.visual_projection, self.encoder.vision_model.post_layernorm):
            part.requires_grad_(False)  # nothing reads it
        width = clip_vision_config()["hidden_size"]
        sizes = [len(options) for options in CHOICES.values()]
        self.heads = nn.ModuleList([nn.Linear(width, size) for size in [*sizes, len(AMOUNTS)]])

    def forward(self, pixels: Tensor) -> list[Tensor]:
        last = self.encoder(pixels)[0].mean(1)
        return [head(last) for head in self.heads]


def train(folder: Path, samples: int) -> None:
    text.make_trainable()
    net = Namer()
    initialise(net)

    def show(_: int, averaged: Weights) -> dict[str, float]:
        judged = Namer()
        judged.load_state_dict(averaged)
        return accuracy(judged)

    lesson = _Features(load(folder / "pictures"))
    averaged = train_net(folder, "clip_vision", net, RECIPE, lesson, samples, show, samples)
    if workers.number() == 0:
        own = {
            k.removeprefix("encoder."): x for k, x in averaged.items() if k.startswith("encoder.")
        }
        save_file(nets.as_half(own), folder / FILE)


class _Features:
    """The net is to name a person's features."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def draw(self, first: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return crops, the numbers of the choices `(b, choices)`, and the amounts."""
        rng = np.random.default_rng([first, 8])
        numbers = rng.integers(len(self.pictures.pixels), size=count).tolist()
        people = [draw_identity(int(self.pictures.people[n])) for n in numbers]
        choices = torch.stack([_numbers(people, feature) for feature in CHOICES], dim=1)
        amounts = torch.tensor([[getattr(who, name) for name in AMOUNTS] for who in people])
        return as_input(self.pictures, numbers, rng), choices, amounts

    def loss(self, net: Namer, crops: Tensor, choices: Tensor, amounts: Tensor) -> Tensor:
        *named, measured = net(crops)
        losses = [F.cross_entropy(o, t) for o, t in zip(named, choices.unbind(1), strict=True)]
        return torch.stack(losses).mean() + 4 * F.mse_loss(measured, amounts - 0.5)


def trained(folder: Path) -> nn.Module:
    """Return the encoder alone, as published; its first output is the last hidden state."""
    net = nets.clip_vision()
    net.load_state_dict(load_file(folder / FILE))
    return net.eval().requires_grad_(False)


def as_input(pictures: Pictures, numbers: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Cut loose crops `(b, 3, 224, 224)` by slightly wrong landmarks, in CLIP's normalisation."""
    crops = [
        loose_crop(pictures.pixels[n], pictures.landmarks[n] + rng.normal(0, JITTER, (5, 2)))
        for n in numbers
    ]
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    return (pixels - mean) / std


def loose_crop(picture: NDArray[np.uint8], landmarks: NDArray[Any]) -> NDArray[np.uint8]:
    """Cut a crop with ArcFace's rotation and centre, but with more around the face."""
    matrix = estimate_norm(landmarks, 112) * (LOOSE * SIDE / 112)
    matrix[:, 2] += (1 - LOOSE) * SIDE / 2
    return cv2.warpAffine(picture, matrix, (SIDE, SIDE))  # type: ignore[return-value]


def _numbers(people: Sequence[Identity], feature: str) -> Tensor:
    return torch.tensor([CHOICES[feature].index(getattr(who, feature)) for who in people])


@torch.inference_mode()
def accuracy(net: Namer, people: int = 50) -> dict[str, float]:
    """Measure the share of right answers by feature, on people never trained on."""
    pictures, rng = held_out(people), np.random.default_rng(9)
    numbers = range(len(pictures.pixels))
    outputs = net(as_input(pictures, numbers, rng))
    truth = [draw_identity(int(person)) for person in pictures.people]
    return {
        feature: float((output.argmax(1) == _numbers(truth, feature)).float().mean())
        for output, feature in zip(outputs, CHOICES, strict=False)
    }

"""Stage `judge`: nets that say what a picture shows. They take no part in making pictures.

They are trained on people and scenes that no other net has seen. `attributes` reads a whole
picture. `likeness` is a separate recogniser, so that no picture was optimised for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from ..nets import as_half
from ..world.scene import COLOURS, EXPRESSIONS, GARMENTS, PLACES, STYLES, Scene, draw_scene
from . import recogniser
from .lesson import Recipe, Weights, averaged_weights
from .lesson import train as train_net
from .pictures import PER_PERSON, Pictures, held_out, load, make_chunks

FILE = "miniature-judge.safetensors"
FIRST_PERSON = 500_000
PICTURES = 12_288
RECIPE = Recipe(rate=1e-3, average=0.995, batch=96)
LIKENESS_FEATURES = 128
SEEN = 128  # pixels: enough for its questions
BLUR, NOISE = 1.2, 4.0  # at most; the autoencoder's pictures are softer than drawn ones
QUESTIONS: dict[str, tuple[str, ...]] = {
    "style": tuple(STYLES),
    "place": tuple(PLACES),
    "garment": GARMENTS,
    "colour": tuple(COLOURS),
    "expression": EXPRESSIONS,
}


def answers(scene: Scene) -> dict[str, str]:
    """Return the answers that a scene asks for; a pencil sketch has no colours."""
    asked = {question: str(getattr(scene, question)) for question in QUESTIONS}
    return asked if scene.coloured else {k: v for k, v in asked.items() if k != "colour"}


class Attributes(nn.Module):
    """`(n, 3, 128, 128)` RGB in -1..1 -> logits for each question."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 24), (24, 48), (48, 96), (96, 128), (128, 160))  # 64 to 4 pixels a side
        layers = [
            layer
            for inputs, outputs in widths
            for layer in (
                nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.Conv2d(outputs, outputs, 3, 1, 1, groups=outputs // 8, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            )
        ]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict(
            {name: nn.Linear(160 * 4 * 4, len(options)) for name, options in QUESTIONS.items()}
        )

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        features = self.body(pixels)
        return {name: head(features) for name, head in self.heads.items()}


def draw_pictures(folder: Path, count: int) -> None:
    """Draws the judge's own pictures."""
    make_chunks(
        folder / "judge_pictures",
        min(count, PICTURES),
        lambda number: FIRST_PERSON + number // PER_PERSON,
        first_scene=FIRST_PERSON * PER_PERSON,
    )


def train_attributes(folder: Path, samples: int) -> None:
    torch.manual_seed(0)
    lesson = _Questions(load(folder / "judge_pictures"))

    def show(_: int, averaged: Weights) -> dict[str, float]:
        judged = Attributes()
        judged.load_state_dict(averaged)
        return accuracy(judged.eval())

    train_net(folder, "attributes", Attributes(), RECIPE, lesson, samples, show, samples)


class _Questions:
    """The net is to answer what a picture shows."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def draw(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Return pictures, and the numbers of the answers `(n, questions)`; -1: not asked."""
        rng = np.random.default_rng([first, 11])
        numbers = rng.integers(len(self.pictures.pixels), size=count)
        asked = [answers(scene) for scene in _scenes(self.pictures, numbers)]
        rows = [
            [options.index(own[name]) if name in own else -1 for name, options in QUESTIONS.items()]
            for own in asked
        ]
        return soften(self.pictures.pixels[numbers], rng), torch.tensor(rows)

    def loss(self, net: Attributes, pixels: Tensor, rows: Tensor) -> Tensor:
        logits = net(pixels).values()
        losses = [
            F.cross_entropy(own, truth, ignore_index=-1)
            for own, truth in zip(logits, rows.unbind(1), strict=True)
        ]
        return torch.stack(losses).mean()


def likeness() -> nn.Sequential:
    """Return a recogniser with fewer features, `(n, 128)`."""
    return recogniser.net(LIKENESS_FEATURES)


def train_likeness(folder: Path, samples: int) -> None:
    """Train the recogniser on the judge's people."""
    torch.manual_seed(1)
    recogniser.teach(folder, "likeness", samples, folder / "judge_pictures", LIKENESS_FEATURES)


def soften(pixels: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """Return pictures as the net takes them, blurred and noisy like reconstructed ones."""
    small = [cv2.resize(p, (SEEN, SEEN), interpolation=cv2.INTER_AREA) for p in pixels]
    soft = np.stack([cv2.GaussianBlur(p, (0, 0), rng.uniform(0.05, BLUR)) for p in small])
    batch = soft + rng.normal(0, rng.uniform(0, NOISE), soft.shape)
    return as_input(np.clip(batch, 0, 255).astype(np.float32))


def as_input(pixels: NDArray[np.float32] | NDArray[np.uint8]) -> Tensor:
    """`(n, h, w, 3)` in 0..255 -> `(n, 3, 128, 128)` in -1..1."""
    rows = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    return F.interpolate(rows, size=(SEEN, SEEN), mode="area") / 127.5 - 1


def _scenes(pictures: Pictures, numbers: Sequence[int] | NDArray[np.int64]) -> list[Scene]:
    return [draw_scene(int(pictures.scenes[n])) for n in numbers]


def export(folder: Path) -> None:
    """Write both nets into one file."""
    tensors = {
        f"{name}.{k}": x
        for name in ("attributes", "likeness")
        for k, x in averaged_weights(folder, name).items()
    }
    save_file(as_half(tensors), folder / FILE)


@torch.inference_mode()
def judge(net: Attributes, pixels: NDArray[np.uint8]) -> list[dict[str, str]]:
    """Return the net's answer to every question, for each picture."""
    output = {name: logits.argmax(1).tolist() for name, logits in net(as_input(pixels)).items()}
    return [
        {name: QUESTIONS[name][numbers[row]] for name, numbers in output.items()}
        for row in range(len(pixels))
    ]


def accuracy(net: Attributes, people: int = 100) -> dict[str, float]:
    """Measure the share of right answers on drawn pictures of people never trained on."""
    pictures = held_out(people)
    given = judge(net, pictures.pixels)
    asked = [answers(scene) for scene in _scenes(pictures, range(len(given)))]
    pairs = list(zip(given, asked, strict=True))
    return {
        question: float(np.mean([g[question] == a[question] for g, a in pairs if question in a]))
        for question in QUESTIONS
    }

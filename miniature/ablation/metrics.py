"""Nets that say what a picture shows, trained on people and scenes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from ...infinite_id.faces.detection import detect
from ...infinite_id.metrics.scores import cosine, count
from ..faces import render
from ..shapes import WEIGHTS
from ..training import judge, recogniser
from ..world.identity import draw_identity
from ..world.scene import Scene
from . import split
from .pipeline import Pixels

LIKENESS, FOLLOWING = "likeness", "following"
FOLLOWED = ("place", "garment", "colour", "expression")
Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Metrics:
    attributes: judge.Attributes
    likeness: nn.Module
    analysis: Any

    @classmethod
    def load(cls, analysis: Any, folder: Path = WEIGHTS) -> Metrics:
        attributes, likeness = judge.Attributes(), judge.likeness()
        stored = load_file(folder / judge.FILE)
        for name, net in (("attributes", attributes), ("likeness", likeness)):
            own = {k.removeprefix(f"{name}."): v for k, v in stored.items() if k.startswith(name)}
            net.load_state_dict(own)
        return cls(attributes.eval(), likeness.eval(), analysis)

    def score(self, pictures: Pixels, scenes: Sequence[Scene], person: Tensor) -> Scores:
        """Return each picture's likeness, the share of the prompt followed, and each answer."""
        return {LIKENESS: self.resembles(pictures, person), **self.follows(pictures, scenes)}

    def follows(self, pictures: Pixels, scenes: Sequence[Scene]) -> Scores:
        """Return for each question 1 if a picture follows its scene, else 0; NaN if not asked."""
        given = judge.judge(self.attributes, pictures)
        asked = [judge.answers(scene) for scene in scenes]
        found: Scores = {
            question: np.array(
                [
                    float(g[question] == a[question]) if question in a else np.nan
                    for g, a in zip(given, asked, strict=True)
                ]
            )
            for question in judge.QUESTIONS
        }
        found[FOLLOWING] = np.nanmean([found[question] for question in FOLLOWED], axis=0)
        return found

    def resembles(self, pictures: Pixels, person: Tensor) -> NDArray[np.float64]:
        """Return the cosine between the largest face and the person; 0 if there is no face."""
        found = np.array([self._resembles(picture, person) for picture in pictures])
        return count(found, clipped=False)

    def embed_person(self, person: int) -> Tensor:
        """Return the mean of the features of a person's drawn pictures, `(128,)`."""
        drawn = [render(draw_identity(person), scene) for scene in split.portraits(person)]
        pixels = np.stack([picture.pixels for picture in drawn])
        landmarks = np.stack([picture.landmarks for picture in drawn])
        mean = recogniser.embed(self.likeness, pixels, landmarks).mean(0)
        return mean / mean.norm()

    def _resembles(self, picture: Pixels, person: Tensor) -> float:
        faces = detect(self.analysis, np.ascontiguousarray(picture[..., ::-1]))
        if not faces:
            return np.nan
        features = recogniser.embed(self.likeness, picture[None], faces[0].landmarks[None])
        return cosine(features[0].numpy(), person.numpy())

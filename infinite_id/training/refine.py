"""Refining one identity: the objective is the same, and only the identity's tokens train.

Every photo is the target of the same identity; no second photo is needed, nor a face net. The
result is an ordinary identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..adapters.adapter import Adapter
from ..identities.projections import KeyValues
from .data import Batch
from .draws import draw_chance, draw_index, generator
from .objective import Frozen, Learner
from .settings import Settings


class Tokens(nn.Module):
    """Identity tokens `(1, l, token_width)` as parameters, float32."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = nn.Parameter(tokens.detach().clone().float())


class RefineObjective(Learner):
    """The denoising loss of a person's photos, as a function of the tokens."""

    def __init__(self, tokens: Tokens, adapter: Adapter, frozen: Frozen) -> None:
        """
        Args:
            adapter: frozen, on the frozen model's device and in its dtype.
        """
        super().__init__(tokens, frozen)
        self._project = adapter.project  # a method: the adapter is no module of this one

    def identify(self, batch: Batch) -> KeyValues:
        tokens = self.learner.get_parameter("tokens").to(self._frozen.dtype)
        return self._project(tokens.expand(len(batch.latents), -1, -1))


@dataclass(frozen=True)
class OwnPhoto:
    """A photo as a target.

    Attributes:
        latents, mirrored: `(c, h, w)` of the photo and its mirror image, from the autoencoder.
        sizes: see `data.Photo`.
    """

    name: str
    latents: Tensor
    mirrored: Tensor
    sizes: tuple[int, int, int, int, int, int]


class OwnPhotos:
    """A person's photos in memory; a step's targets share one shape."""

    def __init__(self, photos: Sequence[OwnPhoto]) -> None:
        self._photos = photos

    def __len__(self) -> int:
        return len(self._photos)

    def read(self, step: int, samples: Sequence[int], settings: Settings, times: int) -> Batch:
        seed = settings.run.seed
        first = self._photos[draw_index(len(self._photos), generator(seed, "bucket", step))]
        alike = [p for p in self._photos if p.latents.shape == first.latents.shape]
        drawn = [self._draw(generator(seed, "sample", step, n), alike, times) for n in samples]
        return self._stack(drawn)

    def show(self, time: int) -> Batch:
        """The first photo at a timestep, always with the same noise."""
        return self._stack([(self._photos[0], False, time, generator(0, "show"))])

    def _draw(
        self, random: torch.Generator, photos: Sequence[OwnPhoto], times: int
    ) -> tuple[OwnPhoto, bool, int, torch.Generator]:
        photo = photos[draw_index(len(photos), random)]
        return photo, draw_chance(0.5, random), draw_index(times, random), random

    def _stack(self, drawn: Sequence[tuple[OwnPhoto, bool, int, torch.Generator]]) -> Batch:
        latents = [photo.mirrored if mirrored else photo.latents for photo, mirrored, _, _ in drawn]
        noise = [
            torch.randn(x.shape, generator=random)
            for x, (*_, random) in zip(latents, drawn, strict=True)
        ]
        return Batch(
            latents=torch.stack(latents),
            noise=torch.stack(noise),
            times=torch.tensor([time for _, _, time, _ in drawn]),
            face=torch.empty(len(drawn), 0),
            clip=torch.empty(len(drawn), 0, 0),
            sizes=torch.tensor([photo.sizes for photo, *_ in drawn]),
            names=tuple(photo.name for photo, *_ in drawn),
        )

"""The training data of a person: latents of photos and mirror images, and the batch of a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..training.draws import draw_chance, draw_index, generator
from ..training.settings import Settings


@dataclass(frozen=True)
class Target:
    """A photo.

    Attributes:
        name: for messages.
        latents: `(2, c, h, w)` of it and of its mirror image, as the autoencoder gives them.
        face, hair: `(2, 1, h, w)` of 0 and 1, likewise.
    """

    name: str
    latents: Tensor
    face: Tensor
    hair: Tensor


@dataclass(frozen=True)
class Batch:
    """Samples of a step on one device.

    Attributes:
        latents, noise: `(b, c, h, w)` float32.
        times: `(b,)` long.
        numbers: the same, which need not be fetched from a device.
        face, hair: `(b, 1, h, w)` of 0 and 1.
        names: of the photos, for messages.
    """

    latents: Tensor
    noise: Tensor
    times: Tensor
    numbers: tuple[int, ...]
    face: Tensor
    hair: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        tensors = ("latents", "noise", "times", "face", "hair")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


class Targets:
    """A run's photos; the number of a step determines its photos."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = targets

    def __len__(self) -> int:
        return len(self._targets)

    def read(self, step: int, samples: Iterable[int], settings: Settings, times: int) -> Batch:
        drawn = []
        for sample in samples:
            random = generator(settings.run.seed, "sample", step, sample)
            target = self._targets[draw_index(len(self._targets), random)]
            mirrored, time = draw_chance(0.5, random), draw_index(times, random)
            drawn.append((target, int(mirrored), time, random))
        return _stack(drawn)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the latents, `(c, h, w)`."""
        _, channels, height, width = self._targets[0].latents.shape
        return channels, height, width

    def show(self, time: int) -> Batch:
        """Return the first photo at a timestep, always with the same noise."""
        return _stack([(self._targets[0], 0, time, generator(0, "show"))])


def _stack(drawn: Sequence[tuple[Target, int, int, torch.Generator]]) -> Batch:
    latents = [target.latents[side] for target, side, *_ in drawn]
    noise = [
        torch.randn(one.shape, generator=random)
        for one, (*_, random) in zip(latents, drawn, strict=True)
    ]
    return Batch(
        latents=torch.stack(latents),
        noise=torch.stack(noise),
        times=torch.tensor([time for _, _, time, _ in drawn]),
        numbers=tuple(time for _, _, time, _ in drawn),
        face=torch.stack([target.face[side] for target, side, *_ in drawn]),
        hair=torch.stack([target.hair[side] for target, side, *_ in drawn]),
        names=tuple(target.name for target, *_ in drawn),
    )

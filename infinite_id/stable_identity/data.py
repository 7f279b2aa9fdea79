"""The training data of a person: augmented headshots in memory, and the batch of a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..training.draws import draw_index, generator
from ..training.settings import Settings
from ..words.masks import Masks, shrink_mask
from .augment import augment, draw_augmentation
from .templates import TEMPLATES

VARIANTS = 512
"""The number of augmented targets. Longer runs use them again, with other noise and timesteps."""


@dataclass(frozen=True)
class Portrait:
    """A photo of the person, prepared for training.

    Attributes:
        name: for messages.
        headshot: `(3, side, side)` RGB in 0..1.
        vectors: `(2, face_width)` of it and of its mirror image.
    """

    name: str
    headshot: Tensor
    masks: Masks
    vectors: Tensor


@dataclass(frozen=True)
class Variant:
    """An augmented target.

    Attributes:
        vector: `(face_width,)`.
        latents: `(c, h, w)` as the autoencoder gives them.
        face, hair: `(1, h, w)` of 0 and 1.
    """

    name: str
    vector: Tensor
    latents: Tensor
    face: Tensor
    hair: Tensor


@dataclass(frozen=True)
class Batch:
    """Samples of a step on one device.

    Attributes:
        vectors: `(b, face_width)`.
        latents, noise: `(b, c, h, w)` float32.
        times: `(b,)` long.
        face, hair: `(b, 1, h, w)` of 0 and 1.
        prompts: with `{}` for the person.
        names: of the photos, for messages.
    """

    vectors: Tensor
    latents: Tensor
    noise: Tensor
    times: Tensor
    face: Tensor
    hair: Tensor
    prompts: tuple[str, ...]
    names: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        tensors = ("vectors", "latents", "noise", "times", "face", "hair")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


def list_needed(begun: int, settings: Settings) -> list[int]:
    """Return the numbers of the variants that the steps after `begun` need; one is read ahead."""
    batch = settings.run.batch
    numbers = range(begun * batch, (settings.run.steps + 1) * batch)
    return sorted({number % VARIANTS for number in numbers[:VARIANTS]})


def make_target(
    portraits: Sequence[Portrait], number: int, seed: int
) -> tuple[Portrait, Tensor, Tensor, Tensor, Tensor]:
    """Make a variant before it is encoded.

    Returns:
        Its portrait, the face vector `(width,)`, the picture `(3, side, side)`, and the masks of
        face and hair at the picture's size.
    """
    random = generator(seed, "variant", number)
    portrait = portraits[draw_index(len(portraits), random)]
    how = draw_augmentation(portrait.headshot.shape[-1], random)
    masks = portrait.masks
    picture, face, hair = augment(portrait.headshot, masks.face, masks.hair, how)
    return portrait, portrait.vectors[int(how.mirrored)], picture, face, hair


def make_variant(
    portrait: Portrait, vector: Tensor, latents: Tensor, face: Tensor, hair: Tensor
) -> Variant:
    """Return a variant with these latents `(c, h, w)`, and masks that may have any size."""
    size = (latents.shape[-2], latents.shape[-1])
    return Variant(portrait.name, vector, latents, shrink_mask(face, size), shrink_mask(hair, size))


class Targets:
    """A run's variants; the number of a step determines its variants."""

    def __init__(self, variants: Mapping[int, Variant], plain: Variant) -> None:
        """
        Args:
            plain: the first photo as it is, for previews.
        """
        self._variants, self._plain = variants, plain

    def __len__(self) -> int:
        return len(self._variants)

    def read(self, step: int, samples: Iterable[int], settings: Settings, times: int) -> Batch:
        run = settings.run
        drawn = []
        for sample in samples:
            random = generator(run.seed, "sample", step, sample)
            variant = self._variants[(step * run.batch + sample) % VARIANTS]
            prompt = TEMPLATES[draw_index(len(TEMPLATES), random)]
            drawn.append((variant, draw_index(times, random), prompt, random))
        return _stack(drawn)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the latents, `(c, h, w)`."""
        channels, height, width = self._plain.latents.shape
        return channels, height, width

    def show(self, time: int) -> Batch:
        """Return the first photo at a timestep, always with the same noise and prompt."""
        return _stack([(self._plain, time, TEMPLATES[0], generator(0, "show"))])


def _stack(drawn: Sequence[tuple[Variant, int, str, torch.Generator]]) -> Batch:
    variants = [variant for variant, *_ in drawn]
    noise = [torch.randn(v.latents.shape, generator=random) for v, *_, random in drawn]
    return Batch(
        vectors=torch.stack([v.vector for v in variants]),
        latents=torch.stack([v.latents for v in variants]),
        noise=torch.stack(noise),
        times=torch.tensor([time for _, time, _, _ in drawn]),
        face=torch.stack([v.face for v in variants]),
        hair=torch.stack([v.hair for v in variants]),
        prompts=tuple(prompt for *_, prompt, _ in drawn),
        names=tuple(v.name for v in variants),
    )

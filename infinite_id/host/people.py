"""Who can act in a sampling run, and who acts at one noise level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from numpy.typing import NDArray
from torch import Tensor

from ..application import Application
from ..attention.blocks import Block
from ..attention.image import log_shares
from ..attention.mixed import Mixing, Style, needs_text_stream
from ..identities.projections import KeyValues
from .memory import HostMemory
from .text_stream import NEVER


@dataclass(frozen=True, eq=False)
class Span:
    """The noise levels between which an application acts, and those of the sampling's hundredths.

    The application acts from `highest` on, and no longer at `lowest`. An application that begins
    there takes over.
    """

    highest: float
    lowest: float
    hundredths: NDArray[np.float64]  # falling

    @classmethod
    def of(cls, application: Application, patcher: ModelPatcher) -> Span:
        sampling: Any = patcher.get_model_object("model_sampling")
        sigmas = [float(sampling.percent_to_sigma(i / 100)) for i in range(1, 101)]
        return cls(
            highest=float(sampling.percent_to_sigma(application.start)),
            lowest=end_sigma(patcher, application.end),
            hundredths=np.array([float(sampling.sigma_max), *sigmas]),
        )

    def progress(self, sigma: float) -> float | None:
        """The share 0..1 of the sampling that has passed; None outside the span."""
        if not self.lowest < sigma <= self.highest:
            return None
        shares = np.linspace(0, 1, len(self.hundredths))
        return float(np.interp(-sigma, -self.hundredths, shares))


@dataclass(eq=False)
class Person:
    """An application made ready for one sampling run.

    Attributes:
        key_values: K', V' per block, `(1 or people, tokens, width)`, on the device.
        unconditional: K', V' for rows of the negative prompt, `(1, own tokens, width)`, on the
            device, or on the CPU if the device's memory is short.
        bias: `(1 or people, 1, tokens)`, see `log_shares`; None if all tokens count alike.
        span: when it acts; None if it always acts with the same weight.
        mask: `(1 or batch, h, w)` on the device.
        memory: tells whether the device's memory is short.
        cache: masks and biases for a forward's rows. Keys hold everything that they depend on.
        copies: the same person on further devices.
    """

    application: Application
    key_values: KeyValues
    unconditional: KeyValues
    bias: Tensor | None
    span: Span | None
    mask: Tensor | None
    memory: HostMemory
    cache: dict[Any, Tensor] = field(default_factory=dict)
    copies: dict[torch.device, Person] = field(default_factory=dict)

    def on(self, device: torch.device) -> Person:
        """Return this person on a device: the host may deal a step's conds to several GPUs."""
        (k, _), *_ = self.key_values.values()
        if k.device == device:
            return self
        if device not in self.copies:
            identity = self.application.identity
            negative = self.application.negative_projections
            self.copies[device] = replace(
                self,
                key_values=identity.projections.on(device, k.dtype),
                unconditional=negative.near(device, k.dtype, self.memory),
                cache={},
                copies={},
            )
        return self.copies[device]

    def factor_at(self, sigma: float) -> float | None:
        """The curve's factor on the weight at this sigma; None if the person does not act."""
        if self.span is None:
            return 1.0
        progress = self.span.progress(sigma)
        return None if progress is None else self.application.factor_at(progress)


@dataclass(frozen=True, eq=False)
class Acting:
    """The people who act at one noise level, and the factors on their weights.

    The last person's mixing and style are used for all.
    """

    people: tuple[Person, ...] = ()
    factors: tuple[float, ...] = ()

    @classmethod
    def at(cls, people: list[Person], sigma: float) -> Acting:
        """Select the people whose span holds this sigma."""
        factors = [(person, person.factor_at(sigma)) for person in people]
        found = [(person, factor) for person, factor in factors if factor is not None]
        return cls(tuple(person for person, _ in found), tuple(factor for _, factor in found))

    def __bool__(self) -> bool:
        return bool(self.people)

    def on(self, device: torch.device) -> Acting:
        return replace(self, people=tuple(person.on(device) for person in self.people))

    def weigh(self, block: Block) -> Iterator[tuple[Person, float]]:
        """Yield each person with its weight in a block, except weights of 0."""
        for person, factor in zip(self.people, self.factors, strict=True):
            weight = person.application.weight_at(block) * factor
            if weight != 0:
                yield person, weight

    @property
    def mixing(self) -> Mixing:
        return self.people[-1].application.mixing

    @property
    def style(self) -> Style:
        return self.people[-1].application.style

    @property
    def reads_text(self) -> bool:
        """Whether the identity stream's self-attention is to read the text stream's."""
        return bool(self) and needs_text_stream(self.mixing, self.style)


def make_ready(application: Application, patcher: ModelPatcher) -> Person:
    """Move an application's tensors for a run to the model's device, in the model's dtype."""
    device, model = patcher.load_device, patcher.model
    dtype = model.manual_cast_dtype or model.get_dtype()
    identity, mask = application.identity, application.mask
    memory = HostMemory(patcher)
    return Person(
        application=application,
        key_values=identity.projections.on(device, dtype),
        unconditional=application.negative_projections.near(device, dtype, memory),
        bias=None if identity.shares is None else log_shares(identity.shares).to(device, dtype),
        span=None if application.is_steady else Span.of(application, patcher),
        mask=None if mask is None else mask.to(device, torch.float32),
        memory=memory,
    )


def end_sigma(patcher: ModelPatcher, share: float) -> float:
    """The noise level at which a share 0..1 of the sampling has passed; NEVER for a share of 1."""
    if share >= 1:
        return NEVER
    sampling: Any = patcher.get_model_object("model_sampling")
    return float(sampling.percent_to_sigma(share))

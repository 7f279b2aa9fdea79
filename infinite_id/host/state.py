"""The state of one sampling run: who acts when, and on which rows of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider
from numpy.typing import NDArray
from torch import Tensor

from ..application import Application
from ..attention.cross import log_shares
from ..attention.mask import Area
from ..attention.mixed import needs_text_stream
from ..economy import Economy
from ..identity import KeyValues
from ..streams import SharedNoise, Streams
from .conds import Comparison
from .text_stream import Part, TextStream

# Where all this is, in the host's transformer options; KEY is that of our wrappers there.
KEY = "infinite_id"
APPLICATIONS = "infinite_id_applications"
ECONOMY = "infinite_id_economy"
RUN = "infinite_id_run"
STEP = "infinite_id_step"


@dataclass(frozen=True, eq=False)
class Span:
    """The sigmas between which an application acts, and those of each hundredth of the sampling."""

    highest: float
    lowest: float
    hundredths: NDArray[np.float64]  # falling

    @classmethod
    def of(cls, application: Application, patcher: ModelPatcher) -> Span:
        sampling = patcher.get_model_object("model_sampling")
        sigmas = [float(sampling.percent_to_sigma(i / 100)) for i in range(1, 101)]
        return cls(
            highest=float(sampling.percent_to_sigma(application.start)),
            lowest=float(sampling.percent_to_sigma(application.end)),
            hundredths=np.array([float(sampling.sigma_max), *sigmas]),
        )

    def progress(self, sigma: float) -> float | None:
        """The share 0..1 of the sampling that lies behind; None outside the span."""
        if not self.lowest <= sigma <= self.highest:
            return None
        shares = np.linspace(0, 1, len(self.hundredths))
        return float(np.interp(-sigma, -self.hundredths, shares))


@dataclass(eq=False)
class Person:
    """An application made ready for one sampling run.

    Attributes:
        identity: K', V' per block, `(1 or people, tokens, width)`, on the device.
        nothing: K', V' of the unconditional tokens, `(1, own tokens, width)`, on the device or,
            where they would take much of it, in the CPU's memory.
        bias: `(1 or people, 1, tokens)`, the tokens' shares; None if all count alike.
        span: when it acts; None if it always does, and always alike.
        mask: `(1 or batch, h, w)` on the device.
        cache: masks and biases for a forward's rows, by everything they depend on.
        copies: the same person on further devices.
    """

    application: Application
    identity: KeyValues
    nothing: KeyValues
    bias: Tensor | None
    span: Span | None
    mask: Tensor | None
    cache: dict[Any, Tensor] = field(default_factory=dict)
    copies: dict[torch.device, Person] = field(default_factory=dict)

    def on(self, device: torch.device) -> Person:
        """With K', V' on another device, too: the host may deal a step's conds to several GPUs."""
        (k, _), *_ = self.identity.values()
        if k.device == device:
            return self
        if device not in self.copies:
            identity = self.application.identity
            self.copies[device] = replace(
                self,
                identity=identity.projections.on(device, k.dtype),
                nothing=identity.unconditional_projections.near(device, k.dtype),
                cache={},
                copies={},
            )
        return self.copies[device]

    def factor_at(self, sigma: Tensor) -> float | None:
        """The weight's course: its factor at this sigma; None where nothing acts."""
        if self.span is None:
            return 1.0
        progress = self.span.progress(float(sigma))
        return None if progress is None else self.application.factor_at(progress)


@dataclass(frozen=True, eq=False)
class Acting:
    """A person in one step, and the factor on its weight."""

    person: Person
    factor: float

    def on(self, device: torch.device) -> Acting:
        return replace(self, person=self.person.on(device))


@dataclass(eq=False)
class Run:
    """One sampling run: its people, the rows of its batch, and its latent's height and width.

    Where a latent is in the batch once, other nodes may cut the batch as they like: one person
    without a text stream, or with shared latents, where each forward adds the text rows.
    """

    guider: CFGGuider
    people: list[Person]
    streams: Streams
    text: TextStream
    latent: tuple[int, int]
    noise: SharedNoise | None
    comparison: Comparison = field(default_factory=Comparison)

    @property
    def is_single(self) -> bool:
        return self.streams.copies == 1


@dataclass(frozen=True)
class Step:
    """One evaluation of the conds: which are positive, areas by cond uuid, and who acts now.

    Attributes:
        streams: the rows of this evaluation.
        is_alike: whether all its conds are alike, and so their text rows.
        part: where the identity stream's self-attention finds the text stream's.
    """

    positive: frozenset[int]
    areas: Mapping[Any, Area]
    people: list[Acting]
    streams: Streams
    is_alike: bool = False
    part: Part = Part.RUNS

    @property
    def mixes(self) -> bool:
        """Whether somebody acts now, and the one who decides reads the text stream."""
        if not self.people:
            return False
        last = self.people[-1].person.application
        return needs_text_stream(last.mixing, last.style)


def prepare(guider: CFGGuider, noise: Tensor) -> Run:
    options = guider.model_options["transformer_options"]
    applications, economy = options[APPLICATIONS], options.get(ECONOMY, Economy())
    two = any(needs_text_stream(a.mixing, a.style) for a in applications)
    shared = two and (economy.shared or "context_handler" in guider.model_options)
    people = _count_people(applications)
    if shared and people > 1:
        raise ValueError(
            "Infinite-ID: a sweep cannot be drawn in context windows or with shared latents. Blend "
            "Identities must give a count of 1."
        )
    streams = Streams(latents=noise.shape[0], people=people, has_text=two and not shared)
    return Run(
        guider=guider,
        people=[_make_ready(application, guider) for application in applications],
        streams=streams,
        text=TextStream(economy, lowest=_sigma_at(guider.model_patcher, economy.until)),
        latent=(noise.shape[-2], noise.shape[-1]),
        noise=SharedNoise(streams, channels=noise.shape[1]) if streams.copies > 1 else None,
    )


def _sigma_at(patcher: ModelPatcher, percent: float) -> float:
    return float(patcher.get_model_object("model_sampling").percent_to_sigma(percent))


def _count_people(applications: Sequence[Application]) -> int:
    """How many identities each latent is drawn with.

    Raises:
        ValueError: if two sweeps of different lengths are applied to one model.
    """
    counts = {application.identity.count for application in applications} - {1}
    if len(counts) > 1:
        raise ValueError(
            f"Infinite-ID: identities of {sorted(counts)} are applied to one model. Blend "
            "Identities must give the same count for each, or a single identity."
        )
    return counts.pop() if counts else 1


def _make_ready(application: Application, guider: CFGGuider) -> Person:
    patcher = guider.model_patcher
    device, model = patcher.load_device, patcher.model
    dtype = model.manual_cast_dtype or model.get_dtype()
    identity, mask = application.identity, application.mask
    nothing = identity.unconditional_projections
    return Person(
        application=application,
        identity=identity.projections.on(device, dtype),
        nothing=nothing.near(device, dtype),
        bias=None if identity.shares is None else log_shares(identity.shares).to(device, dtype),
        span=None if application.is_steady else Span.of(application, patcher),
        mask=None if mask is None else mask.to(device, torch.float32),
    )

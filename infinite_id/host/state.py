"""The state of one sampling run: who acts when, and on which rows of the batch."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.samplers import CFGGuider
from numpy.typing import NDArray
from torch import Tensor

from ..application import Application
from ..attention.cross import log_shares
from ..attention.mixed import needs_text_stream
from ..identities.projections import KeyValues
from ..noise import SharedNoise
from ..savings import Savings
from ..streams import Streams
from .conds import Comparison
from .memory import HostMemory
from .rows import Cond, Window
from .text_stream import NEVER, Part, TextStream

log = logging.getLogger(__name__)

# Where all this is, in the host's transformer options; KEY is that of our wrappers there.
KEY = "infinite_id"
APPLICATIONS = "infinite_id_applications"
SAVINGS = "infinite_id_savings"
LEFTOVER = "infinite_id_leftover"
RUN = "infinite_id_run"
STEP = "infinite_id_step"


@dataclass(frozen=True, eq=False)
class Span:
    """The noise levels at which an application acts, and those of each hundredth of the sampling.

    It acts from `highest` on, and no more at `lowest`: there whoever begins then takes over.
    """

    highest: float
    lowest: float
    hundredths: NDArray[np.float64]  # falling

    @classmethod
    def of(cls, application: Application, patcher: ModelPatcher) -> Span:
        sampling = patcher.get_model_object("model_sampling")
        sigmas = [float(sampling.percent_to_sigma(i / 100)) for i in range(1, 101)]
        return cls(
            highest=float(sampling.percent_to_sigma(application.start)),
            lowest=_end_sigma(patcher, application.end),
            hundredths=np.array([float(sampling.sigma_max), *sigmas]),
        )

    def progress(self, sigma: float) -> float | None:
        """The share 0..1 of the sampling that lies behind; None outside the span."""
        if not self.lowest < sigma <= self.highest:
            return None
        shares = np.linspace(0, 1, len(self.hundredths))
        return float(np.interp(-sigma, -self.hundredths, shares))


@dataclass(eq=False)
class Person:
    """An application made ready for one sampling run.

    Attributes:
        identity: K', V' per block, `(1 or people, tokens, width)`, on the device.
        nothing: K', V' of the unconditional tokens, `(1, own tokens, width)`, on the device or,
            where its memory is short, in the CPU's.
        bias: `(1 or people, 1, tokens)`, the tokens' shares; None if all count alike.
        span: when it acts; None if it always does, and always alike.
        mask: `(1 or batch, h, w)` on the device.
        memory: tells whether it is short.
        cache: masks and biases for a forward's rows, by everything they depend on.
        copies: the same person on further devices.
    """

    application: Application
    identity: KeyValues
    nothing: KeyValues
    bias: Tensor | None
    span: Span | None
    mask: Tensor | None
    memory: HostMemory
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
                nothing=identity.unconditional_projections.near(device, k.dtype, self.memory),
                cache={},
                copies={},
            )
        return self.copies[device]

    def factor_at(self, sigma: float) -> float | None:
        """The weight's course: its factor at this sigma; None where nothing acts."""
        if self.span is None:
            return 1.0
        progress = self.span.progress(sigma)
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

    Attributes:
        shares_latents: whether the text stream sees the identity stream's latents.
        noise: None if there is only one stream.
        evaluations: how many there have been.
        has_acted: whether somebody was to be drawn in one of them.
        is_drawn: whether a forward has gone through all our hooks.
    """

    guider: CFGGuider
    people: list[Person]
    streams: Streams
    text: TextStream
    latent: tuple[int, int]
    noise: SharedNoise | None
    shares_latents: bool = False
    comparison: Comparison = field(default_factory=Comparison)
    evaluations: int = 0
    has_acted: bool = False
    is_drawn: bool = False

    @property
    def is_single(self) -> bool:
        return self.streams.copies == 1

    @property
    def is_timed(self) -> bool:
        """Whether anything depends on the noise level: reading it makes a GPU wait."""
        return self.text.is_timed or any(person.span is not None for person in self.people)

    def check_drawn(self) -> None:
        """Raise ValueError if people were to be drawn and no forward came by our hooks."""
        if self.has_acted and not self.is_drawn:
            raise ValueError(
                "Infinite-ID: another node runs the model's layers itself, such as one of the "
                "DeepCache kind, so that Apply Infinite-ID cannot draw the person. Take that node "
                "out; Infinite-ID Save Time saves in its own way."
            )


@dataclass(frozen=True, eq=False)
class Step:
    """One evaluation of the conds.

    Attributes:
        x: the sampler's batch, `(rows, c, h, w)`.
        conds: what it evaluates.
        people: who acts now.
        streams: the rows of its batch.
        latent: height and width of the whole latent.
        window: the context window that its batch is, if it is one.
        is_alike: whether all its conds are alike, and so their text rows.
        part: where the identity stream's self-attention finds the text stream's.
        key: what it is found by in later steps.
        calls: how many forwards each cond has had; a node may cut a cond's picture into several.
    """

    x: Tensor
    conds: list[Cond]
    people: list[Acting]
    streams: Streams
    latent: tuple[int, int]
    window: Window | None = None
    is_alike: bool = False
    part: Part = Part.RUNS
    key: Hashable = None
    calls: Counter[int] = field(default_factory=Counter)

    @property
    def mixes(self) -> bool:
        """Whether somebody acts now, and the one who decides reads the text stream."""
        if not self.people:
            return False
        last = self.people[-1].person.application
        return needs_text_stream(last.mixing, last.style)


def prepare(guider: CFGGuider, noise: Tensor) -> Run:
    """Make everything ready for a run on `noise` `(latents, c, h, w)`.

    Raises:
        ValueError: if the identities, their masks and the latents do not go together.
    """
    options = guider.model_options["transformer_options"]
    applications, savings = options[APPLICATIONS], _choose_savings(options)
    shared = savings.shared or "context_handler" in guider.model_options
    if shared:
        savings = Savings(shared=True)
    read_until = _read_until(applications, savings)
    people = _count_people(applications)
    _check_masks(applications, len(noise))
    if read_until and shared and people > 1:
        raise ValueError(
            "Infinite-ID: a sweep cannot be drawn in context windows or with shared latents. Blend "
            "Identities must give a count of 1."
        )
    has_text = read_until > 0 and not shared
    streams = Streams(latents=noise.shape[0], people=people, has_text=has_text)
    may_end = not _list_keepers(options)
    return Run(
        guider=guider,
        people=[_make_ready(application, guider) for application in applications],
        streams=streams,
        text=TextStream(
            savings, _end_sigma(guider.model_patcher, read_until) if may_end else NEVER
        ),
        latent=(noise.shape[-2], noise.shape[-1]),
        noise=SharedNoise(streams, noise.shape) if streams.copies > 1 else None,
        shares_latents=read_until > 0 and shared,
    )


def _choose_savings(options: dict[str, Any]) -> Savings:
    """What the user chose, unless another node may keep what a forward gave, for later use.

    Such a node counts on as many rows in every forward, and nothing that is saved has them.
    """
    savings: Savings = options.get(SAVINGS, Savings())
    faithful = Savings(shared=savings.shared)
    found = _list_keepers(options)
    if not found or savings == faithful:
        return savings
    log.warning(
        "Infinite-ID Save Time saves nothing in this run: another node (%s) may keep what a "
        "forward of the model gave and use it later, such as a cache or self-attention guidance, "
        "which needs the same rows in every forward. Take one of the two nodes out.",
        ", ".join(found),
    )
    return faithful


def _list_keepers(options: dict[str, Any]) -> list[str]:
    """The names of other nodes' wrappers around whole forwards, and of replaced self-attention.

    A wrapper around each step counts if the sampling has one too; the host's compiler never does.
    """

    def around(kind: str) -> set[str]:
        table = options.get("wrappers", {}).get(kind, {})
        return {str(key) for key, found in table.items() if found}

    names = around(WrappersMP.APPLY_MODEL) | around(WrappersMP.DIFFUSION_MODEL)
    names |= around(WrappersMP.PREDICT_NOISE) & around(WrappersMP.OUTER_SAMPLE)
    names |= {_name(one) for one in options.get("patches_replace", {}).get("attn1", {}).values()}
    return sorted(names - {KEY, "torch.compile"})


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _read_until(applications: Sequence[Application], savings: Savings) -> float:
    """The share of the sampling 0..1 after which nobody reads the text stream."""
    ends = {share for a in applications for share in (a.start, a.end)}
    places = sorted({0.0, 1.0, savings.until, *ends})
    read = [0.0]
    for start, end in pairwise(places):
        acting = [a for a in applications if a.start <= start and end <= a.end]
        if acting and needs_text_stream(acting[-1].mixing, acting[-1].style):
            read.append(min(end, savings.until))
    return max(read)


def _end_sigma(patcher: ModelPatcher, share: float) -> float:
    """The noise level at which a share of the sampling has passed; NEVER for all of it."""
    if share >= 1:
        return NEVER
    return float(patcher.get_model_object("model_sampling").percent_to_sigma(share))


def _check_masks(applications: Sequence[Application], latents: int) -> None:
    """Raise ValueError if some batch of masks is neither one for all nor one for each latent."""
    for application in applications:
        count = 1 if application.mask is None else len(application.mask)
        if count not in (1, latents):
            raise ValueError(
                f"Apply Infinite-ID: {count} masks for {latents} latents. Give one mask, or one "
                "for each latent; where Latent From Batch took some latents out of a batch, take "
                "the same masks out of theirs."
            )


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
    nothing, memory = identity.unconditional_projections, HostMemory(patcher)
    return Person(
        application=application,
        identity=identity.projections.on(device, dtype),
        nothing=nothing.near(device, dtype, memory),
        bias=None if identity.shares is None else log_shares(identity.shares).to(device, dtype),
        span=None if application.is_steady else Span.of(application, patcher),
        mask=None if mask is None else mask.to(device, torch.float32),
        memory=memory,
    )

"""Two streams in one sampling run: what wraps ComfyUI's sampler.

OUTER_SAMPLE repeats noise, latent and masks for [identity ; text] and returns the identity's rows;
PREDICT_NOISE marks where the sampler ends and the model begins; CALC_COND_BATCH notes which conds
are positive and where they lie, and leaves out the text stream where the user does without. The
forward itself is in `forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import CFGGuider
from comfy.utils import resize_to_batch_size
from numpy.typing import NDArray
from torch import Tensor

from ..application import Application
from ..attention.cross import log_shares
from ..attention.mask import Area
from ..attention.mixed import needs_text_stream
from ..economy import Economy
from ..identity import KeyValues
from ..streams import SharedNoise, Streams
from .text_stream import Part, TextStream

KEY = "infinite_id"
APPLICATIONS = "infinite_id_applications"
ECONOMY = "infinite_id_economy"
RUN = "infinite_id_run"
STEP = "infinite_id_step"

Conds = list[dict[str, Any]]
Evaluate = Callable[[list[Conds | None], "Step"], list[Tensor]]


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
    """

    application: Application
    identity: KeyValues
    nothing: KeyValues
    bias: Tensor | None
    span: Span | None
    mask: Tensor | None
    cache: dict[Any, Tensor] = field(default_factory=dict)

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

    @property
    def is_single(self) -> bool:
        return self.streams.copies == 1


@dataclass(frozen=True)
class Step:
    """One evaluation of the conds: which are positive, areas by cond uuid, and who acts now.

    Attributes:
        streams: the rows of this evaluation.
        part: where the identity stream's self-attention finds the text stream's.
    """

    positive: frozenset[int]
    areas: Mapping[Any, Area]
    people: list[Acting]
    streams: Streams
    part: Part = Part.RUNS

    @property
    def mixes(self) -> bool:
        """Whether somebody acts now, and the one who decides reads the text stream."""
        if not self.people:
            return False
        last = self.people[-1].person.application
        return needs_text_stream(last.mixing, last.style)


def outer_sample(
    executor: WrapperExecutor,
    noise: Tensor,
    latent_image: Tensor,
    sampler: Any,
    sigmas: Tensor,
    denoise_mask: Tensor | None = None,
    callback: Callable[..., None] | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Sample both streams side by side and return the identity stream's latents.

    A sweep of n gives n latents for each that was asked for, those of one latent together.
    """
    guider = executor.class_obj
    run = _prepare(guider, noise)
    streams = run.streams
    guider.conds = {name: _spread_pictures(group, streams) for name, group in guider.conds.items()}
    options = guider.model_options["transformer_options"]
    steady = [Acting(person, 1.0) for person in run.people]
    options[RUN], options[STEP] = run, Step(frozenset({0}), {}, steady, streams)
    if "latent_shapes" in kwargs:
        kwargs["latent_shapes"] = [(streams.rows, *noise.shape[1:])]
    with run.noise or nullcontext():
        samples = executor(
            streams.spread(noise),
            streams.spread(latent_image),
            sampler,
            sigmas,
            None if denoise_mask is None else streams.spread(denoise_mask),
            None if callback is None else _show_identity(callback, streams),
            *args,
            **kwargs,
        )
    return streams.collect(samples).clone()  # a view would keep the text stream's rows


def predict_noise(executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:
    """Suspend the shared noise while the model runs: only samplers draw the latents' noise."""
    run = executor.class_obj.model_options["transformer_options"].get(RUN)
    with run.noise.paused() if run and run.noise else nullcontext():
        return executor(*args, **kwargs)


def calc_cond_batch(
    executor: WrapperExecutor,
    model: Any,
    conds: list[Conds | None],
    x: Tensor,
    timestep: Tensor,
    model_options: dict[str, Any],
) -> list[Tensor]:
    """Note for the forwards below which conds are positive and where their areas lie."""
    options = model_options["transformer_options"]
    run = options[RUN]
    factors = [(person, person.factor_at(timestep[0])) for person in run.people]
    people = [Acting(person, factor) for person, factor in factors if factor is not None]
    step = Step(_find_positive(run, conds), _find_areas(conds), people, run.streams)

    def evaluate(conds: list[Conds | None], step: Step) -> list[Tensor]:
        noted = {**model_options, "transformer_options": {**options, STEP: step}}
        rows = step.streams.rows
        return executor(model, conds, x[:rows], timestep[:rows], noted)

    if run.is_single:
        return evaluate(conds, replace(step, streams=Streams(latents=len(x), has_text=False)))
    if not run.streams.has_text:
        return evaluate(conds, step)
    if run.text.economy.guided or len(step.positive) == len(conds):
        return _evaluate_streams(run, evaluate, conds, step, x, timestep)
    return _evaluate_unguided(run, evaluate, conds, step, x, timestep)


def _evaluate_streams(
    run: Run, evaluate: Evaluate, conds: list[Conds | None], step: Step, x: Tensor, sigma: Tensor
) -> list[Tensor]:
    """Both streams, or the identity stream beside what is known of the text stream."""
    first = run.streams.identity
    key = tuple(tuple(map(id, group or ())) for group in conds)
    part = run.text.plan(key, sigma)
    if part is Part.RUNS:
        denoised = evaluate(conds, step)
        if step.mixes:  # else there are no features to be recalled
            run.text.note(key, x[first:], sigma[first:], [one[first:] for one in denoised])
        return denoised
    alone = replace(step, streams=run.streams.without_text(), part=part)
    text = run.text.predict(part, key, x[first:], sigma[first:], len(conds))
    return [torch.cat(rows) for rows in zip(evaluate(conds, alone), text, strict=True)]


def _evaluate_unguided(
    run: Run, evaluate: Evaluate, conds: list[Conds | None], step: Step, x: Tensor, sigma: Tensor
) -> list[Tensor]:
    """The text stream for the positive conds alone; its negative rows take what those say."""
    first = run.streams.identity
    with_text = [group if i in step.positive else None for i, group in enumerate(conds)]
    without = [None if i in step.positive else group for i, group in enumerate(conds)]
    alone = replace(step, streams=run.streams.without_text(), part=Part.ENDED)
    drawn = _evaluate_streams(run, evaluate, with_text, step, x, sigma)
    others = evaluate(without, alone)
    text = drawn[min(step.positive)][first:] if step.positive else x[first:]
    return [
        drawn[i] if i in step.positive else torch.cat([others[i], text]) for i in range(len(conds))
    ]


def _prepare(guider: CFGGuider, noise: Tensor) -> Run:
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


def _spread_pictures(conds: Conds, streams: Streams) -> Conds:
    """Give every row its own latent's of the pictures that inpaint and edit models read as well.

    The host would stretch a batch of them over the rows (a a b b), not repeat it (a b a b).
    """
    pictures = ("concat_latent_image", "concat_mask")

    def spread(picture: Tensor) -> Tensor:
        return streams.spread(resize_to_batch_size(picture, streams.latents))

    return [{**cond, **{k: spread(cond[k]) for k in pictures if k in cond}} for cond in conds]


def _find_positive(run: Run, conds: list[Conds | None]) -> frozenset[int]:
    """Indices of the positive conds: guiders order them as they like, and some have three.

    There may be none: self-attention guidance evaluates the negative conds alone.
    """
    given = run.guider.conds
    positive = {id(cond) for cond in given.get("positive", ())}
    known = {id(cond) for group in given.values() for cond in group or ()}
    here = [{id(cond) for cond in group or ()} for group in conds]
    if positive and any(group & known for group in here):
        return frozenset(index for index, group in enumerate(here) if group & positive)
    # Guiders with other names, or copies of the conds, leave the host's order: positive first.
    return frozenset({0})


def _find_areas(conds: list[Conds | None]) -> dict[Any, Area]:
    groups = [group for group in conds if group is not None]
    return {c["uuid"]: Area(*c["area"]) for group in groups for c in group if "area" in c}


def _show_identity(callback: Callable[..., None], streams: Streams) -> Callable[..., None]:
    """Previews and the x0 output see the identity stream alone."""

    def show(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        callback(step, x0[: streams.identity], x[: streams.identity], total_steps)

    return show

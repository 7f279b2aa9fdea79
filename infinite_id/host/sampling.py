"""Two streams in one sampling run: what wraps ComfyUI's sampler.

OUTER_SAMPLE doubles noise, latent and masks to [identity ; text] and returns the identity half;
PREDICT_NOISE marks where the sampler ends and the model begins; CALC_COND_BATCH notes which conds
are positive and where they lie. The forward itself is in `forward`.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import CFGGuider
from torch import Tensor

from ..application import Application
from ..attention.blocks import Block
from ..attention.mask import Area
from ..attention.mixed import needs_text_stream
from ..identity import KeyValues
from ..streams import SharedNoise, Streams

KEY = "infinite_id"
APPLICATIONS = "infinite_id_applications"
RUN = "infinite_id_run"
STEP = "infinite_id_step"

Conds = list[dict[str, Any]]


@dataclass(eq=False)
class Person:
    """An application made ready for one sampling run.

    Attributes:
        key_values: K', V' per block, `(2, tokens, width)`: identity, then unconditional.
        sigmas: the highest and lowest sigma at which it acts; None if it always does.
        mask: `(1 or batch, h, w)` on the device.
        mask_cache: the mask at a layer's tokens, by everything it depends on.
    """

    application: Application
    key_values: KeyValues
    sigmas: tuple[float, float] | None
    mask: Tensor | None
    mask_cache: dict[Any, Tensor] = field(default_factory=dict)

    def acts_at(self, sigma: Tensor) -> bool:
        if self.sigmas is None:
            return True
        highest, lowest = self.sigmas
        return lowest <= float(sigma) <= highest

    def project(self, block: Block, like: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.key_values[block]
        return k.to(like), v.to(like)


@dataclass(eq=False)
class Run:
    """One sampling run: its people, the rows of its batch, and its latent's height and width."""

    guider: CFGGuider
    people: list[Person]
    streams: Streams
    latent: tuple[int, int]
    noise: SharedNoise | None


@dataclass(frozen=True)
class Step:
    """One evaluation of the conds: which are positive, areas by cond uuid, and who acts now."""

    positive: frozenset[int]
    areas: Mapping[Any, Area]
    people: list[Person]


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
    """Sample both streams side by side and return the identity stream's latents."""
    guider = executor.class_obj
    run = _prepare(guider, noise)
    streams = run.streams
    options = guider.model_options["transformer_options"]
    options[RUN], options[STEP] = run, Step(frozenset({0}), {}, run.people)
    if "latent_shapes" in kwargs:
        kwargs["latent_shapes"] = [(streams.rows, *noise.shape[1:])]
    with run.noise or nullcontext():
        samples = executor(
            streams.double(noise),
            streams.double(latent_image),
            sampler,
            sigmas,
            None if denoise_mask is None else streams.double(denoise_mask),
            None if callback is None else _show_identity(callback, streams),
            *args,
            **kwargs,
        )
    return samples[: streams.identity].clone()  # a view would keep the text stream's half


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
    people = [person for person in run.people if person.acts_at(timestep[0])]
    step = Step(_find_positive(run, conds), _find_areas(conds), people)
    model_options = {**model_options, "transformer_options": {**options, STEP: step}}
    return executor(model, conds, x, timestep, model_options)


def _prepare(guider: CFGGuider, noise: Tensor) -> Run:
    applications = guider.model_options["transformer_options"][APPLICATIONS]
    two = any(needs_text_stream(a.mixing, a.style) for a in applications)
    streams = Streams(identity=noise.shape[0], text=noise.shape[0] if two else 0)
    return Run(
        guider=guider,
        people=[_make_ready(application, guider) for application in applications],
        streams=streams,
        latent=(noise.shape[-2], noise.shape[-1]),
        noise=SharedNoise(streams, channels=noise.shape[1]) if two else None,
    )


def _make_ready(application: Application, guider: CFGGuider) -> Person:
    patcher = guider.model_patcher
    device, model = patcher.load_device, patcher.model
    dtype = model.manual_cast_dtype or model.get_dtype()
    sampling = patcher.get_model_object("model_sampling")
    always = application.start <= 0 and application.end >= 1
    limits = (
        float(sampling.percent_to_sigma(application.start)),
        float(sampling.percent_to_sigma(application.end)),
    )
    return Person(
        application=application,
        key_values=application.identity.projections.on(device, dtype),
        sigmas=None if always else limits,
        mask=None if application.mask is None else application.mask.to(device, torch.float32),
    )


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

"""Two streams in one sampling run: what wraps ComfyUI's sampler.

OUTER_SAMPLE repeats noise, latent and masks for [identity ; text] and returns the identity's rows;
PREDICT_NOISE marks where the sampler ends and the model begins; CALC_COND_BATCH notes which conds
are positive and where they lie, and leaves out the text stream where the user does without. The
forward itself is in `forward`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from comfy.patcher_extension import WrapperExecutor
from torch import Tensor

from ..attention.mask import Area
from ..streams import Streams
from .conds import Conds, spread
from .state import RUN, STEP, Acting, Run, Step, prepare
from .text_stream import Part

Evaluate = Callable[[list[Conds | None], Step], list[Tensor]]


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
    run = prepare(guider, noise)
    streams = run.streams
    guider.conds = spread(guider.conds, streams)
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
    has_text = run.streams.has_text or step.mixes
    if has_text and "model_function_wrapper" not in model_options:
        step = replace(step, is_alike=run.comparison.is_alike(conds))

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
    return _find_positive_copies(given, conds)


def _find_positive_copies(given: dict[str, Conds], conds: list[Conds | None]) -> frozenset[int]:
    """Among conds that are not the guider's own: a copy has its original's name.

    Only the first of a group counts, since the host adds copies from the other groups behind it.
    """
    names = {group[0]["uuid"]: name for name, group in given.items() if group}
    here = [names.get(group[0]["uuid"]) if group else None for group in conds]
    if "positive" in given and any(here):
        return frozenset(index for index, name in enumerate(here) if name == "positive")
    # Conds of other names, or made anew, are in the host's order, positive first; a node that
    # evaluates one more beside the guider's, such as the empty one of PerpNeg, does so alone.
    return frozenset() if "positive" in given and len(conds) == 1 else frozenset({0})


def _find_areas(conds: list[Conds | None]) -> dict[Any, Area]:
    groups = [group for group in conds if group is not None]
    return {c["uuid"]: Area(*c["area"]) for group in groups for c in group if "area" in c}


def _show_identity(callback: Callable[..., None], streams: Streams) -> Callable[..., None]:
    """Previews and the x0 output see the identity stream alone."""

    def show(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        callback(step, x0[: streams.identity], x[: streams.identity], total_steps)

    return show

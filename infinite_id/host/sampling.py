"""Runs two streams in one sampling run: the wrappers of ComfyUI's sampler.

OUTER_SAMPLE repeats noise, latent and masks for [identity ; text] and returns the identity's rows.
PREDICT_NOISE marks where the sampler ends and the model begins. CALC_COND_BATCH decides for each
evaluation who acts and what its rows are; `evaluate` runs it. The forward itself is in `forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import CFGGuider
from torch import Tensor

from ..streams import Streams
from .conds import Conds, find_positive, is_active, read_course, spread
from .evaluate import evaluate
from .guidance import guide_copies
from .keys import EVALUATION, RUN
from .leftover import hand_on, spread_latent
from .people import Acting
from .prepare import prepare
from .recollection import stop_for
from .request import Request
from .rows import list_conds, name_rows, read_window
from .run import Evaluation, Run
from .text_stream import TextRows


def _guider_of(executor: WrapperExecutor) -> CFGGuider:
    """Return the guider whose method is wrapped."""
    return cast(CFGGuider, executor.class_obj)


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

    A sweep of n gives n latents for each requested latent, side by side.
    Wraps OUTER_SAMPLE: `noise (n, c, h, w)` -> `(n * people, c, h, w)`.

    Raises:
        ValueError: if latents and noise differ in number.
    """
    guider = _guider_of(executor)
    if len(noise) != len(latent_image):
        raise ValueError(
            f"Infinite-ID: the latent holds {len(latent_image)} pictures and there is noise for "
            f"{len(noise)}. Latent From Batch before a sweep causes this. Decode the sweep's "
            "pictures and encode them again, or put Rebatch Latents behind the sweep."
        )
    run = prepare(guider, noise, steps=len(sigmas) - 1)
    if run.recollection is not None:
        stop_for(run.recollection, sampler)
    streams = run.streams
    guider.conds = spread(guider.conds, streams)
    options = guider.model_options["transformer_options"]
    steady = Acting(tuple(run.people), (1.0,) * len(run.people))
    options[RUN], options[EVALUATION] = run, Evaluation(noise, [], steady, streams, run.latent)
    if "latent_shapes" in kwargs:
        kwargs["latent_shapes"] = [(streams.rows, *noise.shape[1:])]
    with run.noise or nullcontext():
        samples = executor(
            streams.spread(noise),
            spread_latent(run, latent_image, noise, sigmas),
            sampler,
            sigmas,
            None if denoise_mask is None else streams.spread(denoise_mask),
            None if callback is None else _show_identity(callback, streams),
            *args,
            **kwargs,
        )
    run.check_drawn()
    run.report()
    hand_on(run, samples, sigmas)
    return streams.collect(samples).clone()  # a view would keep the text stream's rows


def predict_noise(
    executor: WrapperExecutor,
    x: Tensor,
    timestep: Tensor,
    model_options: dict[str, Any] = {},  # noqa: B006  # the host's own signature
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Suspend the shared noise while the model runs: only samplers draw the latents' noise.

    Wraps PREDICT_NOISE: `x (rows, c, h, w)` -> the denoised latents of the same shape.
    If there is one latent, all copies share one noise level: other nodes' guidance may expect it.
    """
    run: Run | None = _guider_of(executor).model_options["transformer_options"].get(RUN)
    if run is None or run.noise is None:
        return executor(x, timestep, model_options, *args, **kwargs)
    if run.streams.latents == 1:
        timestep = timestep[:1]
    with run.noise.paused(x.shape):
        guided = guide_copies(model_options, run.streams)
        return executor(x, timestep, guided, *args, **kwargs)


def calc_cond_batch(
    executor: WrapperExecutor,
    model: Any,
    conds: list[Conds | None],
    x: Tensor,
    timestep: Tensor,
    model_options: dict[str, Any],
) -> list[Tensor]:
    """Decide who acts in this evaluation and where the text stream comes from, and run it.

    Wraps CALC_COND_BATCH: `x (rows, c, h, w)` -> the denoised latents of each group of conds.
    """
    run: Run = model_options["transformer_options"][RUN]
    timestep = timestep.expand(len(x))
    sigma = float(timestep[0]) if run.is_timed else float("nan")
    positive = find_positive(run.guider.conds, conds)
    request = Request(executor, model, name_rows(conds), x, timestep, model_options)
    evaluation = _begin(run, request, positive, conds, sigma)
    denoised = evaluate(run, request, evaluation, positive, sigma)
    run.evaluations += 1
    if evaluation.acting and not run.is_drawn:
        run.has_acted |= any(is_active(cond, timestep) for group in conds for cond in group or ())
        if run.evaluations == 1:  # later a cache may replace the forward
            run.check_drawn()
    return denoised


def _begin(
    run: Run,
    request: Request,
    positive: frozenset[int],
    given: list[Conds | None],
    sigma: float,
) -> Evaluation:
    x = request.x
    window = read_window(request.options, x.shape)
    acting, deep = Acting.at(run.people, sigma), run.deep
    course: Hashable = None
    if run.follows_course:
        patcher, options = request.model.current_patcher, request.model_options
        course = read_course(run.guider.conds, request.timestep, patcher, options)
    has_rows = run.text_rows is TextRows.IN_BATCH or acting.reads_text or run.rows_stay
    evaluation = Evaluation(
        x=x,
        conds=list_conds(given, positive),
        acting=acting,
        batch=Streams(latents=len(x), has_text=False) if run.is_single else run.streams,
        latent=(x.shape[-2], x.shape[-1]) if window is None else window.measure(x.shape),
        window=window,
        is_wrapped=request.is_wrapped,
        text_rows=run.text_rows if has_rows else TextRows.NONE,
        step=None
        if deep is None
        else deep.begin(request.signature, sigma, (acting.people, course)),
        course=course,
    )
    exists = evaluation.text_rows is not TextRows.NONE
    if exists and "model_function_wrapper" not in request.model_options:
        return replace(evaluation, is_alike=run.comparison.is_alike(given))
    return evaluation


def _show_identity(callback: Callable[..., None], streams: Streams) -> Callable[..., None]:
    """Show previews and the x0 output the identity stream alone, in the samples' order."""

    def show(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        callback(step, streams.collect(x0), streams.collect(x), total_steps)

    return show

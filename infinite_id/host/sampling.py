"""Runs two streams in one sampling run: the wrappers of ComfyUI's sampler.

OUTER_SAMPLE repeats noise, latent and masks for [identity ; text] and returns the identity's rows.
PREDICT_NOISE marks where the sampler ends and the model begins. CALC_COND_BATCH decides for each
evaluation who acts, what its rows are, and where the text stream comes from. The forward itself is
in `forward`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from ..streams import Streams
from .conds import Conds, find_positive, is_active, read_course, spread
from .control import control_copies
from .guidance import guide_copies
from .leftover import hand_on, spread_latent
from .people import Acting
from .prepare import prepare
from .rows import list_conds, name_rows, read_window
from .run import EVALUATION, RUN, Evaluation, Run
from .text_stream import MissingError, TextRows


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


@dataclass(frozen=True)
class _Request:
    """What the host asks for: an evaluation of groups of conds on the sampler's batch."""

    executor: WrapperExecutor
    model: Any
    groups: list[Conds | None]
    x: Tensor
    timestep: Tensor
    model_options: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = self.model_options["transformer_options"]
        return options

    def run(self, evaluation: Evaluation) -> list[Tensor]:
        """Run the host's evaluation of all groups as `evaluation` says, on as many rows.

        The UNet runs in full if the deep features to recall are missing.
        """
        deep, step, signature = self.options[RUN].deep, evaluation.step, self.signature
        if step is None:
            return self._run(evaluation)
        step = replace(step, key=(signature, step.number))
        if not step.is_full and deep.is_found(signature):
            try:
                denoised = self._run(replace(evaluation, step=step))
            except MissingError:
                deep.miss(signature)
            else:
                deep.find(signature)
                return denoised
        return self._run(replace(evaluation, step=replace(step, is_full=True)))

    def _run(self, evaluation: Evaluation) -> list[Tensor]:
        evaluation = replace(evaluation, calls=Counter())
        options = {**self.options, EVALUATION: evaluation}
        noted = {**self.model_options, "transformer_options": options}
        rows = evaluation.streams.rows
        if "model_function_wrapper" in noted:
            noted["model_function_wrapper"] = _check_rows(noted["model_function_wrapper"])
        groups = control_copies(self.groups, evaluation.streams.copies)
        return self.executor(self.model, groups, self.x[:rows], self.timestep[:rows], noted)

    def only(self, kept: Callable[[int], bool]) -> _Request:
        """Return this request with some of the groups; the host returns zeros for the others."""
        groups = [group if kept(index) else None for index, group in enumerate(self.groups)]
        return replace(self, groups=groups)

    @property
    def signature(self) -> Hashable:
        """Tells apart requests at one noise level, such as one with perturbed layers."""
        tables = self.options.get("patches_replace", {})
        replaced = frozenset(
            (name, place, _tell(function))
            for name, table in tables.items()
            for place, function in table.items()
        )
        patches = self.options.get("patches", {})
        listed = frozenset((name, tuple(map(_tell, own))) for name, own in patches.items())
        sizes = tuple(None if group is None else len(group) for group in self.groups)
        return tuple(self.x.shape), sizes, replaced, listed

    @property
    def is_wrapped(self) -> bool:
        """Whether another node wraps the model. It may cut the picture or move it."""
        around = self.options["wrappers"].get(WrappersMP.APPLY_MODEL, {})
        return "model_function_wrapper" in self.model_options or len(around) > 1


def _tell(function: Any) -> Hashable:
    """Identify another node's function, even if the node makes it anew at each step."""
    function = getattr(function, "func", function)  # if it is a partial
    kind: Any = type(function)
    code: Hashable = getattr(function, "__code__", kind)
    return code


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
    request = _Request(executor, model, name_rows(conds), x, timestep, model_options)
    evaluation = _begin(run, request, positive, conds, sigma)
    if run.text_rows is not TextRows.IN_BATCH:
        denoised = request.run(evaluation)
    elif run.text.savings.guided or len(positive) == len(conds):
        denoised = _evaluate_streams(run, request, evaluation, sigma)
    else:
        denoised = _evaluate_unguided(run, request, evaluation, positive, sigma)
    run.evaluations += 1
    if evaluation.acting and not run.is_drawn:
        run.has_acted |= any(is_active(cond, timestep) for group in conds for cond in group or ())
        if run.evaluations == 1:  # later a cache may replace the forward
            run.check_drawn()
    return denoised


def _begin(
    run: Run,
    request: _Request,
    positive: frozenset[int],
    given: list[Conds | None],
    sigma: float,
) -> Evaluation:
    x = request.x
    window = read_window(request.options, x.shape)
    acting, deep = Acting.at(run.people, sigma), run.deep
    course: Hashable = None
    if deep is not None or run.text.memory is not None:
        patcher, options = request.model.current_patcher, request.model_options
        course = read_course(run.guider.conds, request.timestep, patcher, options)
    is_read = run.text_rows is TextRows.IN_BATCH or acting.reads_text
    evaluation = Evaluation(
        x=x,
        conds=list_conds(given, positive),
        acting=acting,
        batch=Streams(latents=len(x), has_text=False) if run.is_single else run.streams,
        latent=(x.shape[-2], x.shape[-1]) if window is None else window.measure(x.shape),
        window=window,
        is_wrapped=request.is_wrapped,
        text_rows=run.text_rows if is_read else TextRows.NONE,
        step=None
        if deep is None
        else deep.begin(request.signature, sigma, (acting.people, course)),
        course=course,
    )
    exists = evaluation.text_rows is not TextRows.NONE
    if exists and "model_function_wrapper" not in request.model_options:
        return replace(evaluation, is_alike=run.comparison.is_alike(given))
    return evaluation


def _evaluate_streams(
    run: Run, request: _Request, evaluation: Evaluation, sigma: float
) -> list[Tensor]:
    """Evaluate both streams, or the identity stream alone with predicted text rows."""
    first, signature = run.streams.identity, request.signature
    x, timestep = request.x[first:], request.timestep[first:]
    is_full = evaluation.step is None or evaluation.step.is_full
    text_rows, key = run.text.plan(signature, sigma, is_full, evaluation.course)
    alone = replace(evaluation, text_rows=text_rows, key=key)
    if text_rows is TextRows.RECALLED:
        try:
            return _join(request.run(alone), run.text.predict(key, x, timestep))
        except MissingError:
            run.text.miss(signature)
            text_rows = TextRows.IN_BATCH
    if text_rows is TextRows.IN_BATCH:
        if run.text.memory is not None and is_full:
            run.text.memory.drop(key)
        denoised = request.run(replace(evaluation, key=key))
        if evaluation.acting.reads_text:  # else there are no features to be recalled
            run.text.remember(key, x, timestep, [one[first:] for one in denoised])
        return denoised
    if text_rows is TextRows.ADDED and run.streams.people > 1:
        raise ValueError(
            "Infinite-ID: this sampler goes back to higher noise after the text stream has ended, "
            "which a sweep cannot follow. Set mix_until in Infinite-ID Save Time and end in Apply "
            "Infinite-ID to 1, or take another sampler."
        )
    if not evaluation.acting.reads_text:
        alone = replace(alone, text_rows=TextRows.NONE)
    return _follow(request.run(alone), run.streams)


def _evaluate_unguided(
    run: Run, request: _Request, evaluation: Evaluation, positive: frozenset[int], sigma: float
) -> list[Tensor]:
    """Evaluate the text stream for the positive conds alone; negative rows copy the result."""
    first, count = run.streams.identity, len(request.groups)
    alone = replace(evaluation, text_rows=TextRows.NONE)
    drawn = _evaluate_streams(run, request.only(positive.__contains__), evaluation, sigma)
    others = request.only(lambda index: index not in positive).run(alone)
    text = drawn[min(positive)][first:] if positive else request.x[first:]
    joined = _join(others, [text] * count)
    return [drawn[i] if i in positive else joined[i] for i in range(count)]


def _check_rows(wrapper: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wrap another node's model wrapper to check that it returns as many rows as it is given."""

    def run(apply_model: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        out = wrapper(apply_model, given)
        if len(out) != len(given["input"]):
            raise ValueError(
                f"Infinite-ID: another node around the model, such as a cache, gave {len(out)} "
                f"rows where there are {len(given['input'])} now. Take that node out, or "
                "Infinite-ID Save Time; set end_percent in Apply Infinite-ID to 1."
            )
        return out

    return run


def _follow(identity: list[Tensor], streams: Streams) -> list[Tensor]:
    """Append text rows that nobody reads: copies of the first person's prediction.

    Another node may take a mean over the batch. It is then the same as without these rows.
    """
    return _join(identity, [one[: streams.latents] for one in identity])


def _join(identity: list[Tensor], text: list[Tensor]) -> list[Tensor]:
    return [torch.cat(rows) for rows in zip(identity, text, strict=True)]


def _show_identity(callback: Callable[..., None], streams: Streams) -> Callable[..., None]:
    """Show previews and the x0 output the identity stream alone, in the samples' order."""

    def show(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        callback(step, streams.collect(x0), streams.collect(x), total_steps)

    return show

"""Evaluates both streams, or the identity stream alone beside a text stream that is not run."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..streams import Streams
from .archive import Record
from .conds import list_active
from .request import Request
from .run import Evaluation, Run
from .text_stream import MissingError, TextRows


def evaluate(
    run: Run, request: Request, evaluation: Evaluation, positive: frozenset[int], sigma: float
) -> list[Tensor]:
    """Return the denoised latents of each group of conds, `(rows, c, h, w)`."""
    agreement, groups = run.agreement, request.groups
    if agreement is None:
        return _evaluate_groups(run, request, evaluation, positive, sigma)
    prompts = list_active(run.guider.conds, request.timestep)
    acting = evaluation.acting.people, prompts, evaluation.course
    agreement.enter(sigma, evaluation.step is None or evaluation.step.is_full, acting)
    if agreement.leaves_out(groups, positive):
        request = request.only(positive.__contains__)
        (kept,) = positive
        prediction = _evaluate_groups(run, request, evaluation, positive, sigma)[kept]
        return [prediction, prediction.clone()]
    denoised = _evaluate_groups(run, request, evaluation, positive, sigma)
    agreement.see(groups, positive, request.x[: evaluation.batch.identity], denoised)
    return denoised


def _evaluate_groups(
    run: Run, request: Request, evaluation: Evaluation, positive: frozenset[int], sigma: float
) -> list[Tensor]:
    asked = {index for index, group in enumerate(request.groups) if group is not None}
    if run.text_rows is not TextRows.IN_BATCH:
        return request.run(evaluation)
    if run.text.savings.guided or positive == asked:
        return _evaluate_streams(run, request, evaluation, sigma)
    return _evaluate_unguided(run, request, evaluation, positive, sigma)


def _evaluate_streams(
    run: Run, request: Request, evaluation: Evaluation, sigma: float
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
        if run.text.keeps and is_full:
            run.text.memory.drop(key)
        denoised = _evaluate_both(run, request, replace(evaluation, key=key))
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


def _evaluate_both(run: Run, request: Request, evaluation: Evaluation) -> list[Tensor]:
    """Evaluate both streams; the identity stream alone if an earlier run had this text stream."""
    recollection, first = run.recollection, run.streams.identity
    rows = request.x[first:], request.timestep[first:]
    key = None
    if recollection is not None:
        patcher, course = request.model.current_patcher, evaluation.course
        options = request.model_options
        key = recollection.make_key(patcher, request.groups, rows, options, course)
    if recollection is None or key is None:
        return request.run(evaluation)
    found = recollection.find(key, needs_layers=evaluation.acting.reads_text)
    if found is not None:
        try:
            denoised = _recall(run, request, evaluation, found)
        except MissingError:
            pass  # other forwards than then
        else:
            recollection.found += 1
            return denoised
    record = recollection.begin()
    denoised = request.run(replace(evaluation, record=record))
    recollection.keep(key, record, [one[first:] for one in denoised])
    return denoised


def _recall(run: Run, request: Request, evaluation: Evaluation, record: Record) -> list[Tensor]:
    memory = run.text.memory
    memory.adopt(evaluation.key, record.layers)
    try:
        identity = request.run(replace(evaluation, text_rows=TextRows.RECALLED))
    finally:
        if not run.text.keeps:
            memory.drop(evaluation.key)
    return _join(identity, [one.to(request.x) for one in record.denoised])


def _evaluate_unguided(
    run: Run, request: Request, evaluation: Evaluation, positive: frozenset[int], sigma: float
) -> list[Tensor]:
    """Evaluate the text stream for the positive conds alone; negative rows copy the result."""
    first, count = run.streams.identity, len(request.groups)
    alone = replace(evaluation, text_rows=TextRows.NONE)
    drawn = _evaluate_streams(run, request.only(positive.__contains__), evaluation, sigma)
    others = request.only(lambda index: index not in positive).run(alone)
    text = drawn[min(positive)][first:] if positive else request.x[first:]
    joined = _join(others, [text] * count)
    return [drawn[i] if i in positive else joined[i] for i in range(count)]


def _follow(identity: list[Tensor], streams: Streams) -> list[Tensor]:
    """Append text rows that nobody reads: copies of the first person's prediction.

    Another node may take a mean over the batch. It is then the same as without these rows.
    """
    return _join(identity, [one[: streams.latents] for one in identity])


def _join(identity: list[Tensor], text: list[Tensor]) -> list[Tensor]:
    return [torch.cat(rows) for rows in zip(identity, text, strict=True)]

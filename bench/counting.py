"""FLOPs, bytes and memory of each mode at true size, beside the least possible FLOPs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from ..infinite_id.host.deep import Step
from ..infinite_id.host.keys import EVALUATION
from ..infinite_id.host.text_stream import TextRows
from .limit import UNet, Work, count_limit
from .modes import MODES, SAVINGS, Evaluation, Mode, list_evaluations
from .true_size import (
    CONFIG,
    META,
    make_identity,
    make_options,
    make_sdxl,
    run_with,
    without_storage,
)
from .watch import Counts, watch

SIZES = (512, 768, 1024, 1536)
PIXELS = 8  # the pixels along a side of one latent


def count_modes(sizes: Sequence[int]) -> dict[str, Any]:
    """Return a step's mean cost for each size and mode, relative to the plain model's."""
    return {**_count_bytes(), "sizes": {str(size): _count_size(size) for size in sizes}}


@without_storage()
def _count_bytes() -> dict[str, int]:
    """Count the bytes of the UNet, and of an identity's K', V'."""
    weights = make_sdxl(torch.float16, META).diffusion_model.parameters()
    pairs = make_identity(device=META).projections.on(META, torch.float16).values()
    return {
        "weights": sum(x.nbytes for x in weights),
        "identity": sum(x.nbytes for pair in pairs for x in pair),
    }


def _count_size(size: int) -> list[dict[str, Any]]:
    print(f"counting at {size} px", flush=True)
    work = Work(size // PIXELS, size // PIXELS)
    plain = _count_step(None, work)
    return [
        {
            "mode": mode.name,
            "flops": found["flops"] / plain["flops"] / mode.people,
            "limit": found["limit"] / plain["limit"] / mode.people,
            "bytes": found["bytes_moved"] / plain["bytes_moved"] / mode.people,
            "extra": found["peak"] - plain["peak"],
            "plain": plain,
        }
        for mode, found in ((mode, _count_step(mode, work)) for mode in (*MODES, *SAVINGS))
    ]


def _count_step(mode: Mode | None, work: Work) -> dict[str, float]:
    """Return means over the steps; for memory, the maximum."""
    unet, evaluations = UNet.of(CONFIG), list_evaluations(mode)
    counts = {e: count_evaluation(like(mode), e, work) for e in evaluations}

    def mean(measure: Callable[[Evaluation], float]) -> float:
        return sum(share * measure(e) for e, share in evaluations.items())

    return {
        "flops": mean(lambda e: counts[e].flops),
        "limit": mean(lambda e: count_limit(unet, work, mode, e)),
        "bytes_moved": mean(lambda e: counts[e].bytes_moved),
        "peak": max(c.peak for c in counts.values()),
    }


def like(mode: Mode | None) -> Mode | None:
    """Return the mode without settings that do not change an evaluation; equal ones count once."""
    if mode is None:
        return None
    every = 2 if mode.savings.remember else min(mode.savings.every, 2)
    savings = replace(mode.savings, every=every, until=1.0, guided=True, deep=1, remember=0.0)
    return replace(mode, name="", target=None, savings=savings, is_alike=False)


@cache
@without_storage()
def count_evaluation(mode: Mode | None, evaluation: Evaluation, work: Work) -> Counts:
    """Count one forward. What it recalls of an earlier forward is computed before, uncounted."""
    model = make_sdxl(torch.float16, META)
    if mode is None:
        with watch() as counts:
            run_with(model, {}, work.height, work.width)
        return counts
    people = [mode.apply_to(make_identity(mode.people, work.tokens, META))] * work.identities
    noise = torch.zeros(work.batch, 4, work.height, work.width)
    savings = replace(mode.savings, deep=1 + evaluation.is_shallow)
    options = make_options(model, people, noise, savings, evaluation.conds)
    if evaluation.text_rows is TextRows.RECALLED:
        run_with(model, options, work.height, work.width)
    counted = options[EVALUATION]
    if not evaluation.has_text:
        counted = replace(counted, text_rows=evaluation.text_rows)
    counted = replace(counted, is_alike=evaluation.is_alike, calls=Counter())
    if evaluation.is_shallow:
        options[EVALUATION] = replace(counted, step=Step(0, is_full=True), calls=Counter())
        run_with(model, options, work.height, work.width)
        counted = replace(counted, step=Step(0, is_full=False))
    options[EVALUATION] = counted
    with watch() as counts:
        run_with(model, options, work.height, work.width)
    return counts

"""Why a step takes longer than its FLOPs suggest: attention does fewer FLOPs per second.

The attention calls of a plain step are timed alone, in its shapes, between plain steps. This gives
the price of an attention FLOP in FLOPs of convolutions and linear layers. With this price the least
FLOPs of a mode give its least time, however efficient the rest is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention

from .clock import Clock
from .counting import PIXELS
from .limit import Work, count_attention, count_row, count_step, list_layers
from .models import Subject
from .modes import MODES, Mode
from .timing import Way, time_step
from .true_size import IDENTITY_TOKENS

ROWS = 2  # of a plain step: the positive and the negative prompt


def time_floor(subject: Subject, size: int, repeats: int) -> dict[str, Any]:
    """Return seconds of a plain step and of its attention, the price, and the least times."""
    side = size // PIXELS
    work = Work(side, side, tokens=IDENTITY_TOKENS)
    plain, noise = Way(subject.model), torch.zeros(1, 4, side, side)
    time_step(subject, plain, noise)
    pairs = [
        (time_step(subject, plain, noise)[0], _time_attention(subject, work))
        for _ in range(repeats)
    ]
    seconds, alone = (median(values) for values in zip(*pairs, strict=True))
    whole, part = count_row(subject.shape, work), count_attention(subject.shape, work)
    price = (alone / part) / ((seconds - alone) / (whole - part))
    return {
        **subject.kind,
        "size": size,
        "plain": seconds,
        "attention": alone,
        "price": price,
        "modes": {
            mode.name: {
                "flops": _least(subject, work, mode),
                "time": _least(subject, replace(work, attention=price), mode),
            }
            for mode in MODES
        },
    }


def _least(subject: Subject, work: Work, mode: Mode) -> float:
    """Return the least cost of a step of one picture, in plain steps."""
    shape = subject.shape
    return count_step(shape, work, mode) / count_step(shape, work, None) / mode.people


def _time_attention(subject: Subject, work: Work) -> float:
    """Time all attention calls of a plain step in seconds, with the host's own function."""
    calls = Counter(
        (pixels, width, keys)
        for pixels, width in list_layers(subject.shape, work)
        for keys in (pixels, work.text)
    )
    return sum(times * _time_call(subject, *call) for call, times in calls.items())


@torch.inference_mode()
def _time_call(subject: Subject, pixels: int, width: int, keys: int) -> float:
    device = subject.model.load_device
    q, k = (torch.randn(ROWS, n, width, device=device).to(subject.dtype) for n in (pixels, keys))
    heads = width // subject.head_width
    clock, found = Clock(device), []
    for _ in range(5):
        with clock:
            optimized_attention(q, k, k, heads)
        found.append(clock.seconds)
    return median(found)

"""The timings of a model: the modes, a peer's pack, and the growth of the cost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..infinite_id.host.patch import apply
from .clock import Clock
from .counting import PIXELS
from .limit import Work, count_step
from .models import Subject
from .modes import FAITHFUL, ONLY, Mode
from .peer import patch_by_both
from .texts import PEER
from .timing import Way, compare, make_ways
from .true_size import IDENTITY_TOKENS

BASE = Work(64, 64, tokens=IDENTITY_TOKENS)
VARIED: dict[str, tuple[int, ...]] = {
    "batch": (1, 2, 4, 8),
    "tokens": (16, 64, 256, 1024),
    "identities": (1, 2, 4, 8),
    "resolution": (256, 512, 768, 1024),
}


def time_modes(subject: Subject, modes: Sequence[Mode], size: int, repeats: int) -> dict[str, Any]:
    """Return ratios of the modes to plain, and those of a peer if there is one."""
    ways = make_ways(subject, modes, IDENTITY_TOKENS)
    found: dict[str, Any] = {
        **subject.kind,
        "size": size,
        "project": _project(subject),
        "weights": sum(p.numel() for p in subject.model.model.diffusion_model.parameters()),
        "limit": _limit_modes(subject, modes, size),
        **compare(subject, ways, size, repeats),
    }
    if PEER not in os.environ:
        print(f"{PEER} is not set: no peer compared")
        return found
    peers = patch_by_both(subject)
    beside = compare(subject, peers.ways, size, repeats)
    return found | {"peer": {"megabytes": peers.megabytes, **beside}}


def _project(subject: Subject) -> float:
    """Time the projection of an identity's tokens to K', V' of all layers, in seconds."""
    clock = Clock(subject.model.load_device)
    identity = subject.draw_identity(1, IDENTITY_TOKENS)
    with clock:
        identity.projections.on(subject.model.load_device, subject.dtype)
    return clock.seconds


def _limit_modes(subject: Subject, modes: Sequence[Mode], size: int) -> dict[str, float]:
    """Return the least FLOPs of a step of one picture, in plain steps."""
    work = replace(BASE, height=size // PIXELS, width=size // PIXELS)
    plain = count_step(subject.shape, work, None)
    return {
        mode.name: count_step(subject.shape, work, mode) / plain / mode.people for mode in modes
    }


def time_scaling(subject: Subject, repeats: int) -> dict[str, Any]:
    """Time steps as one size grows, in units of a plain step of one latent at 512 px."""
    base = _time_point(subject, BASE, repeats)["plain"]["middle"]
    return {
        **subject.kind,
        "curves": {
            name: [_grow(subject, name, value, base, repeats) for value in values]
            for name, values in VARIED.items()
        },
    }


def _grow(subject: Subject, name: str, value: int, base: float, repeats: int) -> dict[str, Any]:
    print(f"{name} {value}", flush=True)
    side = value // PIXELS
    changes = {"height": side, "width": side} if name == "resolution" else {name: value}
    work = replace(BASE, **changes)
    timed = _time_point(subject, work, repeats)
    plain = timed["plain"]["middle"] / base
    least = count_step(subject.shape, BASE, None)
    ratios = {mode: found["ratio"]["middle"] for mode, found in timed["modes"].items()}
    return {
        "value": value,
        "timed": {"plain": plain} | {mode: plain * ratio for mode, ratio in ratios.items()},
        "limit": {
            "plain" if mode is None else mode.name: count_step(subject.shape, work, mode) / least
            for mode in (None, ONLY, FAITHFUL)
        },
    }


def _time_point(subject: Subject, work: Work, repeats: int) -> dict[str, Any]:
    ways = {}
    for mode in (ONLY, FAITHFUL):
        model = subject.model
        for _ in range(work.identities):
            identity = subject.draw_identity(1, work.tokens)
            model = apply(model, mode.apply_to(identity))
        ways[mode.name] = Way(model)
    return compare(subject, ways, work.height * PIXELS, repeats, work.batch)

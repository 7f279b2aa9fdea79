"""Nodes that sample in a way of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pack.tests.host.world import load

from .case import Case, part

SAMPLERS = (
    "multistep/res_2m",
    "exponential/res_2s",
    "exponential/res_3s",
    "multistep/deis_2m",
    "linear/euler",
)


def res4lyf_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    """Samplers of ClownSampler (Advanced), and every kind of noise that it draws."""
    world = load(folder, "least", torch.float32)
    node = part(peer, "beta.samplers").ClownSamplerAdvanced_Beta
    kinds = part(peer, "beta.noise_classes").NOISE_GENERATOR_CLASSES_SIMPLE

    def make(sampler: str, noise: str = "gaussian", **more: Any) -> Any:
        told = {"noise_type_sde": noise, "noise_type_sde_substep": noise, "noise_seed_sde": 1}
        return node.execute(sampler_name=sampler, **told, **more).result[0]

    for sampler in SAMPLERS:
        yield Case(f"ClownSampler, {sampler}", world, sampler=make(sampler), how={"steps": 4})
    for noise in kinds:
        sampler = make("exponential/res_2s", noise)
        yield Case(f"ClownSampler, {noise} noise", world, sampler=sampler, how={"steps": 4})

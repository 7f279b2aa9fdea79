"""The true-size SDXL UNet, 2.57 billion weights, on a CUDA device that need not exist.

Fake tensors have a device, a dtype and a shape but no storage. Code that mixes devices or dtypes,
or that waits for a value (`.item()`, a branch on data), raises. FLOPs are counted exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import comfy.model_base
import comfy.supported_models
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ..infinite_id.adapters.adapter import Adapter, AdapterConfig
from ..infinite_id.application import Application
from ..infinite_id.host.hooks import apply_model
from ..infinite_id.host.keys import APPLICATIONS, EVALUATION, KEY, RUN, SAVINGS
from ..infinite_id.host.memory import HostMemory
from ..infinite_id.host.people import Acting
from ..infinite_id.host.prepare import prepare
from ..infinite_id.host.rows import Cond
from ..infinite_id.host.run import Evaluation
from ..infinite_id.identities import projections
from ..infinite_id.identities.identity import Identity
from ..infinite_id.savings import Savings
from ..infinite_id.training.host_count import UNET as CONFIG
from ..infinite_id.training.host_count import make_model
from .modes import NEGATIVE, NO_SAVINGS, POSITIVE

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda"), torch.device("meta")
IDENTITY_TOKENS = 258  # the CLIP tokens and one face token, as in the figures of the host's notes


@contextmanager
def fake_cuda() -> Iterator[FakeTensorMode]:
    """Make tensors without storage on what looks like a real device; no memory can be pinned.

    No tensor outlives the mode that it belongs to.
    """
    try:
        with patch.object(HostMemory, "has_room", lambda *_: True), FakeTensorMode() as mode:
            yield mode
    finally:
        for make in (make_sdxl, make_identity, _make_adapter):
            make.cache_clear()


@contextmanager
def without_storage() -> Iterator[None]:
    """Make all tensors on PyTorch's `meta` device; nothing can be kept on another device.

    This is many times quicker than fake tensors, and enough for counting.
    """
    with (
        patch.object(projections, "_move", lambda values, _: values),
        patch.object(HostMemory, "has_room", lambda *_: True),
        META,
    ):
        yield


@cache
def make_sdxl(dtype: torch.dtype, device: torch.device = CUDA) -> comfy.model_base.SDXL:
    return make_model(CONFIG, dtype, device)


@cache
def make_identity(
    people: int = 1, tokens: int = IDENTITY_TOKENS, device: torch.device = CPU
) -> Identity:
    """Make an identity and its adapter in float32, as Encode Identity does."""
    drawn = torch.zeros(people, tokens, 2048, device=device)
    return Identity(drawn, drawn[:1], _make_adapter(device))


@cache
def _make_adapter(device: torch.device) -> Adapter:
    with device:
        return Adapter(AdapterConfig.sdxl()).requires_grad_(False)


def make_options(
    model: comfy.model_base.SDXL,
    people: Sequence[Application],
    noise: Tensor,
    savings: Savings = NO_SAVINGS,
    conds: Sequence[int] = (NEGATIVE, POSITIVE),
) -> dict[str, Any]:
    """Make the transformer options of a guided forward by the pack's own preparation."""
    patcher = SimpleNamespace(
        load_device=model.device, model=model, get_model_object=lambda name: getattr(model, name)
    )
    chosen = {APPLICATIONS: tuple(people), SAVINGS: savings}
    guider: Any = SimpleNamespace(
        model_patcher=patcher, model_options={"transformer_options": chosen}
    )
    run = prepare(guider, noise, steps=savings.least)
    return {
        RUN: run,
        EVALUATION: Evaluation(
            x=noise,
            conds=[Cond(group, positive=group == POSITIVE) for group in (POSITIVE, NEGATIVE)],
            acting=Acting(tuple(run.people), (1.0,) * len(run.people)),
            batch=run.streams,
            latent=run.latent,
            text_rows=run.text_rows,
        ),
        "cond_or_uncond": list(conds),
        "uuids": [cond + 1 for cond in conds],
        "wrappers": {WrappersMP.APPLY_MODEL: {KEY: [apply_model]}},
    }


@torch.inference_mode()
def run_with(
    model: comfy.model_base.SDXL,
    options: dict[str, Any],
    height: int,
    width: int,
) -> Tensor:
    """Run one forward at guidance > 1, as the host calls it; without options, unpatched."""
    device = model.device
    chunks = len(options.get("cond_or_uncond", (NEGATIVE, POSITIVE)))
    rows = chunks * (options[EVALUATION].streams.rows if options else 1)
    return model.apply_model(
        torch.zeros(rows, 4, height, width, device=device),
        torch.ones(rows, device=device),
        c_crossattn=torch.zeros(rows, 77, 2048, device=device),
        y=torch.zeros(rows, 2816, device=device),
        transformer_options=options,
    )

"""Prepares a sampling run and refuses inputs that do not go together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from comfy.patcher_extension import WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from ..application import Application
from ..attention.mixed import needs_text_stream
from ..noise import SharedNoise
from ..savings import Savings
from ..streams import Streams
from .agreement import Agreement
from .deep import DeepFeatures
from .keys import APPLICATIONS, ARCHIVE, KEY, SAVINGS, STAGED
from .people import end_sigma, make_ready
from .recollection import Recollection
from .run import Run
from .text_stream import NEVER, TextRows, TextStream

log = logging.getLogger(__name__)


def prepare(guider: CFGGuider, noise: Tensor, steps: int) -> Run:
    """Prepare a run of `steps` steps on `noise` `(latents, c, h, w)`.

    Raises:
        ValueError: if the identities, their masks and the latents do not go together.
    """
    _check_latent(noise, guider.model_patcher.model.latent_format.latent_channels)
    options = guider.model_options["transformer_options"]
    applications, savings = options.get(APPLICATIONS, ()), _choose_savings(options, steps)
    windows = guider.model_options.get("context_handler")
    shared = savings.shared or windows is not None
    if shared:
        savings = Savings(shared=True)
    read_until = _read_until(applications, savings)
    people = _count_people(applications)
    _check_masks(applications, len(noise))
    if people > 1 and ((read_until and shared) or getattr(windows, "dim", None) == 0):
        raise ValueError(
            "Infinite-ID: a sweep cannot be drawn in context windows or with shared latents. Blend "
            "Identities must give a count of 1."
        )
    recollection = None
    text_rows = TextRows.ADDED if shared else TextRows.IN_BATCH
    if not read_until:
        text_rows = TextRows.NONE
    has_text = text_rows is TextRows.IN_BATCH
    streams = Streams(latents=noise.shape[0], people=people, has_text=has_text)
    if savings.remember and has_text:
        recollection = Recollection(options[ARCHIVE])
        if savings.deep > 1:
            recollection.stop("deep_every keeps what both streams need; set it to 1")
    may_end = not _list_keepers(options)
    return Run(
        guider=guider,
        people=[make_ready(application, guider.model_patcher) for application in applications],
        streams=streams,
        text=TextStream(savings, end_sigma(guider.model_patcher, read_until) if may_end else NEVER),
        latent=(noise.shape[-2], noise.shape[-1]),
        noise=SharedNoise(streams, noise.shape) if streams.copies > 1 else None,
        text_rows=text_rows,
        rows_stay=not may_end,
        agreement=Agreement(savings.agree) if savings.agree < 1 else None,
        recollection=recollection,
        deep=DeepFeatures(savings.deep, savings.change) if savings.deep > 1 else None,
    )


def _check_latent(noise: Tensor, channels: int) -> None:
    """Raise ValueError if the latents hold no picture or do not fit this kind of model."""
    if noise.ndim == 4 and len(noise) and noise.shape[1] == channels and noise.numel():
        return
    raise ValueError(
        f"Infinite-ID: the latent is of shape {tuple(noise.shape)}, and this model draws "
        f"(pictures, {channels}, height, width), at least one picture. Take Empty Latent Image, or "
        "VAE Encode with the model's own VAE."
    )


def _choose_savings(options: dict[str, Any], steps: int) -> Savings:
    """Return the user's savings, or `shared` alone for few steps or if another node forbids them.

    A node may keep a forward's output and use it later. It needs the same rows in every forward,
    and savings change them.
    """
    savings: Savings = options.get(SAVINGS, Savings())
    faithful = Savings(shared=savings.shared)
    found = _list_keepers(options)
    if steps < savings.least:
        log.info("Infinite-ID Save Time saves nothing in a sampling of %d steps.", steps)
        return faithful
    if not found or savings == faithful:
        return savings
    log.warning(
        "Infinite-ID Save Time saves nothing in this run: another node (%s) may keep what a "
        "forward of the model gave and use it later, such as a cache or self-attention guidance, "
        "which needs the same rows in every forward. Take one of the two nodes out.",
        ", ".join(found),
    )
    return faithful


def _list_keepers(options: dict[str, Any]) -> list[str]:
    """The names of other nodes' wrappers around whole forwards, and of replaced self-attention.

    A wrapper around each step counts only if the same node also wraps the sampling. The host's
    compiler and Apply Staged Identity never count.
    """

    def around(kind: str) -> set[str]:
        table = options.get("wrappers", {}).get(kind, {})
        return {str(key) for key, found in table.items() if found}

    names = around(WrappersMP.APPLY_MODEL) | around(WrappersMP.DIFFUSION_MODEL)
    names |= around(WrappersMP.PREDICT_NOISE) & around(WrappersMP.OUTER_SAMPLE)
    names |= {_name(one) for one in options.get("patches_replace", {}).get("attn1", {}).values()}
    return sorted(names - {KEY, STAGED, "torch.compile"})


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _read_until(applications: Sequence[Application], savings: Savings) -> float:
    """The share of the sampling 0..1 after which nobody reads the text stream."""
    ends = {share for a in applications for share in (a.start, a.end)}
    places = sorted({0.0, 1.0, savings.until, *ends})
    read = [0.0]
    for start, end in pairwise(places):
        acting = [a for a in applications if a.start <= start and end <= a.end]
        if acting and needs_text_stream(acting[-1].mixing, acting[-1].style):
            read.append(min(end, savings.until))
    return max(read)


def _check_masks(applications: Sequence[Application], latents: int) -> None:
    """Raise ValueError if a batch of masks has neither one mask nor one for each latent."""
    for application in applications:
        count = 1 if application.mask is None else len(application.mask)
        if count not in (1, latents):
            raise ValueError(
                f"Apply Infinite-ID: {count} masks for {latents} latents. Give one mask, or one "
                "for each latent; where Latent From Batch took some latents out of a batch, take "
                "the same masks out of theirs."
            )


def _count_people(applications: Sequence[Application]) -> int:
    """How many identities each latent is drawn with.

    Raises:
        ValueError: if two sweeps of different lengths are applied to one model.
    """
    counts = {application.identity.count for application in applications} - {1}
    if len(counts) > 1:
        raise ValueError(
            f"Infinite-ID: identities of {sorted(counts)} are applied to one model. Blend "
            "Identities must give the same count for each, or a single identity."
        )
    return counts.pop() if counts else 1

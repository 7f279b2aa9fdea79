"""Hands the text stream's latents on from one part of a sampling to the next.

A sampling may be cut in two, for instance by two KSampler (Advanced). It passes only the identity
stream's latent on. Both parts share a model, which keeps the text stream's latent for the second.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from .keys import LEFTOVER
from .run import Run

log = logging.getLogger(__name__)


class Leftover:
    """Both streams' latents after the last run that left noise in them; on the CPU."""

    def __init__(self) -> None:
        self._identity: Tensor | None = None
        self._text: Tensor | None = None

    def keep(self, identity: Tensor, text: Tensor) -> None:
        """Remember latents, both `(latents, c, h, w)`, as the run hands them out."""
        self._identity, self._text = identity.cpu(), text.cpu()

    def find(self, latent: Tensor) -> Tensor | None:
        """Return the text stream's latents if `latent` is bit for bit the kept identity latent."""
        if self._identity is None or self._identity.shape != latent.shape:
            return None
        return self._text if torch.equal(self._identity, latent.cpu()) else None


def spread_latent(run: Run, latent: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """`(n, c, h, w)` -> the latents of both streams, `(rows, c, h, w)`.

    If this run adds no noise, the text stream continues from where the run before left it.
    """
    streams = run.streams
    spread = streams.spread(latent)
    if not streams.has_text or noise.any():
        return spread
    text = _find_leftover(run).find(latent)
    if text is not None:
        return torch.cat([spread[: streams.identity], text.to(latent)])
    if not _is_clean(run, sigmas) and run.text.is_read(sigmas):
        log.info(
            "Infinite-ID: this sampling adds no noise to its latent, and the text stream starts "
            "from that latent, too. If another sampling with a person left it, that one's text "
            "stream is not known any more."
        )
    return spread


def hand_on(run: Run, samples: Tensor, sigmas: Tensor) -> None:
    """Keep the text stream's latents for a run that goes on with `samples (rows, c, h, w)`.

    Nothing is kept if no noise is left in them.
    """
    streams = run.streams
    if streams.has_text and streams.people == 1 and run.text.goes_on and sigmas[-1] > 0:
        _find_leftover(run).keep(samples[: streams.identity], samples[streams.identity :])


def _find_leftover(run: Run) -> Leftover:
    leftover: Leftover = run.guider.model_options["transformer_options"][LEFTOVER]
    return leftover


def _is_clean(run: Run, sigmas: Tensor) -> bool:
    """Whether the latent has no noise yet, as with flipped noise levels: both streams are equal."""
    sampling: Any = run.guider.model_patcher.get_model_object("model_sampling")
    return float(sigmas[0]) < float(sampling.sigma_min)

"""The text stream's latents, handed on from one part of a sampling to the next.

A sampling that is cut in two, such as by two KSampler (Advanced), passes one latent on: the
identity stream's. The model that both parts share keeps the text stream's beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Leftover:
    """Both streams' latents at the end of the last run that left noise in them; on the CPU."""

    def __init__(self) -> None:
        self._identity: Tensor | None = None
        self._text: Tensor | None = None

    def keep(self, identity: Tensor, text: Tensor) -> None:
        """Remember latents, both `(latents, c, h, w)`, as the run hands them out."""
        self._identity, self._text = identity.cpu(), text.cpu()

    def find(self, latent: Tensor) -> Tensor | None:
        """The text stream's latents beside these, which must be those kept to the last bit."""
        if self._identity is None or self._identity.shape != latent.shape:
            return None
        return self._text if torch.equal(self._identity, latent.cpu()) else None

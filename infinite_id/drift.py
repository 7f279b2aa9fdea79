"""Tells whether the streams differ by more than the model's predictions.

Samplers are linear, with the same factors in all rows: a new x is a sum of earlier x, of
predictions and of noise. If two rows get the same noise, their difference lies in the span of their
earlier differences. If it lies outside, the sampler has added different noise to the rows.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .streams import Streams

SAMPLES = 1024
"""How many numbers of a difference are compared; few, so that watching costs nothing."""
WINDOW = 48
"""Earlier differences that may explain one: those of about ten steps."""
FOREIGN = 0.3
"""The largest unexplained share of a difference. With different noise it is near 1."""
ROUNDING = 1e-3


class Drift:
    """The differences between the copies of the latents, step by step."""

    def __init__(self, streams: Streams, latents: Tensor, mask: Tensor | None) -> None:
        """`latents` is the sampler's batch; where `mask` is not 1, the host repaints the rows."""
        self._streams = streams
        self._shape = latents.shape
        self._seen: list[Tensor] = []
        self._targets: list[int] = []
        whole = torch.arange(latents[0].numel(), device=latents.device)
        if mask is not None:
            is_free = (mask.to(latents).expand(latents.shape) == 1).all(0)
            whole = whole[is_free.flatten()]
        wanted = max(64, SAMPLES // streams.identity)
        self._places = whole[:: max(1, len(whole) // wanted)][:wanted]

    def see(self, x: Tensor) -> None:
        """Note the sampler's latents `(rows, ...)`, which `is_foreign` checks."""
        if x.shape == self._shape:
            self._targets.append(len(self._seen))
            self.explain(x)

    def explain(self, x: Tensor) -> None:
        """Note a prediction `(rows, ...)`, which may explain later latents."""
        if x.shape == self._shape:
            self._seen.append(x.flatten(1)[:, self._places].float())

    def is_foreign(self) -> bool:
        """Whether any difference is not explained by those before it; waits for the device."""
        if not self._targets or len(self._places) < 64:
            return False
        seen = torch.stack(self._seen).cpu().double()
        rows = seen.view(len(seen), self._streams.copies, self._streams.latents, -1).numpy()
        apart = (rows[:, :-1] - rows[:, -1:]).reshape(len(rows), -1)
        sizes = np.linalg.norm(rows[:, :-1].reshape(len(rows), -1), axis=1)
        return any(
            not _is_explained(apart[i], apart[max(0, i - WINDOW) : i], sizes[i])
            for i in self._targets
        )


def _is_explained(x: NDArray[np.float64], by: NDArray[np.float64], size: float) -> bool:
    length = float(np.linalg.norm(x))
    if not length > ROUNDING * size:  # also where the picture is NaN
        return True
    lengths = np.linalg.norm(by, axis=1)
    basis = (by[lengths > 0] / lengths[lengths > 0, None]).T
    left = x - basis @ np.linalg.lstsq(basis, x, rcond=1e-10)[0]
    return bool(float(np.linalg.norm(left)) < max(FOREIGN * length, ROUNDING * size))

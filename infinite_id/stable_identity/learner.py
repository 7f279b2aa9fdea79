"""The mapper and its loss, with the diffusion model that it is learnt for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from ..training.objective import Prediction, add_noise, estimate_z0
from ..words.files import Rows
from ..words.learner import PersonLearner
from .data import Batch
from .mapper import Mapper
from .objective import Noised, Phases, choose_phase, two_phase_loss


class Frozen(Protocol):
    """A diffusion model with its text encoders; their weights do not change.

    Attributes:
        alphas_cumprod: `(steps,)`, the noise schedule.
        prediction: what it predicts.
    """

    alphas_cumprod: Tensor
    prediction: Prediction

    def scale(self, latents: Tensor) -> Tensor:
        """The autoencoder's latents -> latents in the model's own scale."""
        ...

    def predict(
        self, noised: Tensor, times: Tensor, rows: Rows | None, prompts: Sequence[str]
    ) -> Tensor:
        """Return the prediction `(b, c, h, w)` float32, with gradients to the rows.

        Args:
            rows: `(b, 2, d)` of each text encoder, for the `{}` in the prompts; None if the
                prompts have no `{}`.
        """
        ...


class WordLearner(PersonLearner):
    """Trains a mapper to make the words of one person."""

    def __init__(self, mapper: Mapper, frozen: Frozen, phases: Phases = Phases.BOTH) -> None:
        super().__init__(mapper)
        self._frozen = frozen  # no module of this one: nothing of it is trained or stored
        self._phases = phases

    @property
    def mapper(self) -> Mapper:
        return cast(Mapper, self.learner)

    def forward(self, batch: Batch) -> Tensor:
        """The loss of each sample, `(b,)` float32."""
        at = self._add_noise(batch)
        output = self._predict(batch, at)
        return two_phase_loss(output, at, batch.face, batch.hair, self._frozen.prediction)

    @torch.no_grad()
    def denoise(self, batch: Batch) -> Tensor:
        at = self._add_noise(batch)
        return estimate_z0(at.noised, self._predict(batch, at), at.alpha, self._frozen.prediction)

    def _add_noise(self, batch: Batch) -> Noised:
        latents = self._frozen.scale(batch.latents)
        alphas = self._frozen.alphas_cumprod.to(latents)
        alpha = alphas[batch.times]
        return Noised(
            latents,
            batch.noise,
            add_noise(latents, batch.noise, alpha),
            alpha,
            choose_phase(batch.times, len(alphas), self._phases),
        )

    def _predict(self, batch: Batch, at: Noised) -> Tensor:
        rows = self.mapper(batch.vectors)
        return self._frozen.predict(at.noised, batch.times, rows, batch.prompts)

"""The token network and its loss, with the diffusion model that it is learnt for."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol, cast

import torch
from torch import Tensor

from ..training.objective import Prediction, add_noise, estimate_z0, make_target
from ..words.learner import PersonLearner
from ..words.masks import masked_error
from .data import Batch
from .network import TokenNetwork
from .stages import Words, find_stage


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

    def predict_staged(
        self, noised: Tensor, times: Tensor, words: Words, stages: Sequence[int], compares: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the prediction `(b, c, h, w)` and the attention's error `(b,)`, float32.

        Args:
            stages: of each sample.
            compares: whether the attention is compared with the reference's; else its error is 0.
        """
        ...


class StagedLearner(PersonLearner):
    """Trains a token network to make the words of one person."""

    def __init__(self, network: TokenNetwork, frozen: Frozen, attention: float) -> None:
        """
        Args:
            attention: lambda, the weight of the attention loss.
        """
        super().__init__(network)
        self._frozen = frozen  # no module of this one: nothing of it is trained or stored
        self._attention = attention

    @property
    def network(self) -> TokenNetwork:
        return cast(TokenNetwork, self.learner)

    def forward(self, batch: Batch) -> Tensor:
        """The loss of each sample, `(b,)` float32."""
        latents, _, alpha, output, error = self._predict(batch, compares=self._attention > 0)
        target = make_target(latents, batch.noise, alpha, self._frozen.prediction)
        denoising = masked_error(output - target, batch.face, batch.hair)
        return denoising + self._attention * error

    @torch.no_grad()
    def denoise(self, batch: Batch) -> Tensor:
        _, noised, alpha, output, _ = self._predict(batch, compares=False)
        return estimate_z0(noised, output, alpha, self._frozen.prediction)

    def _predict(self, batch: Batch, compares: bool) -> tuple[Tensor, ...]:
        """Return scaled latents, noised ones, alpha `(b,)`, output, and the attention's error."""
        frozen, words = self._frozen, self.network()
        latents = frozen.scale(batch.latents)
        alphas = frozen.alphas_cumprod.to(latents)
        alpha = alphas[batch.times]
        noised = add_noise(latents, batch.noise, alpha)
        stages = [find_stage(Fraction(time, len(alphas)), words.stages) for time in batch.numbers]
        output, error = frozen.predict_staged(noised, batch.times, words, stages, compares)
        return latents, noised, alpha, output, error

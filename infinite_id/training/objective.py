"""The objective: identity-enhanced training (Infinite-ID, figure 'decoupling', left).

The noised target is a whole photo, the identity comes from a *different* photo of the same person,
there is no prompt, and the text cross-attention is inactive. Trainable: the two mappers and the
projections K', V'. For a model that predicts the noise, the loss is
`E || eps - eps_theta(z_t, t, c_id) ||^2`; for one that predicts the velocity, its target is
`v = sqrt(a) eps - sqrt(1 - a) z` (Salimans and Ho, 2022).
"""

from enum import Enum
from typing import Protocol

import torch
from torch import Tensor, nn

from ..adapter import Adapter
from ..projections import KeyValues
from .data import Batch


class Prediction(Enum):
    """What a diffusion model predicts."""

    NOISE = "epsilon"
    VELOCITY = "v"


class Frozen(Protocol):
    """The diffusion model that an adapter is trained for; its weights do not change.

    Attributes:
        alphas_cumprod: `(steps,)`, the noise schedule.
        prediction: what it predicts.
        dtype: of its weights; the forward runs in it.
    """

    alphas_cumprod: Tensor
    prediction: Prediction
    dtype: torch.dtype

    def scale(self, latents: Tensor) -> Tensor:
        """The autoencoder's latents -> what the model works on."""
        ...

    def predict(self, noised: Tensor, t: Tensor, key_values: KeyValues, sizes: Tensor) -> Tensor:
        """`(b, c, h, w)`: the prediction, with gradients to K' and V'.

        Args:
            sizes: `(b, 6)`, see `data.Photo`.
        """
        ...


def add_noise(latents: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """`z_t = sqrt(a) z + sqrt(1 - a) eps`; alpha is `(b,)`."""
    a = alpha[:, None, None, None]
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def make_target(latents: Tensor, noise: Tensor, alpha: Tensor, prediction: Prediction) -> Tensor:
    """What the model should predict."""
    if prediction is Prediction.NOISE:
        return noise
    a = alpha[:, None, None, None]
    return a.sqrt() * noise - (1 - a).sqrt() * latents


def min_snr_weight(alpha: Tensor, prediction: Prediction, gamma: float) -> Tensor:
    """Min-SNR weights `(b,)` (Hang et al., 2023); ones for a gamma of 0."""
    if gamma == 0:
        return torch.ones_like(alpha)
    snr = alpha / (1 - alpha)
    weight_of_z0 = snr.clamp(max=gamma)
    return weight_of_z0 / (snr if prediction is Prediction.NOISE else snr + 1)


class Objective(nn.Module):
    """The adapter and its loss as one module, as DDP and FSDP want it."""

    def __init__(self, adapter: Adapter, frozen: Frozen, min_snr: float = 0.0) -> None:
        super().__init__()
        self.adapter = adapter
        self._frozen = frozen  # no module of this one: nothing of it is trained, stored or shared
        self._min_snr = min_snr

    def forward(self, batch: Batch) -> Tensor:
        """The loss of each sample, `(b,)` float32."""
        frozen = self._frozen
        latents = frozen.scale(batch.latents)
        alpha = frozen.alphas_cumprod.to(latents)[batch.times]
        noised = add_noise(latents, batch.noise, alpha)
        tokens = self.adapter.mapper(batch.face, batch.clip)  # float32: it is small
        key_values = self.adapter.project(tokens.to(frozen.dtype))
        prediction = frozen.predict(noised, batch.times, key_values, batch.sizes)
        target = make_target(latents, batch.noise, alpha, frozen.prediction)
        error = (prediction.float() - target).square().mean(dim=(1, 2, 3))
        return min_snr_weight(alpha, frozen.prediction, self._min_snr) * error

"""The objective: identity-enhanced training (Infinite-ID, figure 'decoupling', left).

The noised target is a whole photo, the identity comes from a *different* photo of the same person,
there is no prompt, and the text cross-attention is inactive (with the setting `objective.text`, the
paper's ablation, both are there, as in IP-Adapter). Trainable: the two mappers and the
projections K', V'. For a model that predicts the noise, the loss is
`E || eps - eps_theta(z_t, t, c_id) ||^2`; for one that predicts the velocity, its target is
`v = sqrt(a) eps - sqrt(1 - a) z` (Salimans and Ho, 2022).
"""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from ..adapters.adapter import Adapter
from ..identities.projections import KeyValues
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

    def predict(
        self,
        noised: Tensor,
        t: Tensor,
        key_values: KeyValues,
        sizes: Tensor,
        captions: Sequence[str],
    ) -> Tensor:
        """`(b, c, h, w)`: the prediction, with gradients to K' and V'.

        Args:
            sizes: `(b, 6)`, see `data.Photo`.
            captions: read only if the text attention is active.
        """
        ...


def add_noise(latents: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """`z_t = sqrt(a) z + sqrt(1 - a) eps`; alpha is `(b,)`."""
    a = alpha[:, None, None, None]
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def make_target(latents: Tensor, noise: Tensor, alpha: Tensor, prediction: Prediction) -> Tensor:
    """What the model should predict, `(b, c, h, w)`.

    That is the noise, or v (Salimans and Ho, 2022, "Progressive Distillation").

    Args:
        alpha: `(b,)`, the cumulative product at each sample's timestep.
    """
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


def estimate_z0(noised: Tensor, output: Tensor, alpha: Tensor, prediction: Prediction) -> Tensor:
    """The latents without noise that a model's output implies, `(b, c, h, w)`."""
    a = alpha[:, None, None, None]
    if prediction is Prediction.NOISE:
        return (noised - (1 - a).sqrt() * output) / a.sqrt()
    return a.sqrt() * noised - (1 - a).sqrt() * output


class Trained(nn.Module):
    """What trains, together with its loss, as the one module that DDP and FSDP need.

    Called with a batch, it gives the loss of each sample, `(b,)` float32.

    Attributes:
        learner: the part whose parameters train.
    """

    def __init__(self, learner: nn.Module) -> None:
        super().__init__()
        self.learner = learner


class Learner(Trained):
    """Identity tokens learn by the plain denoising loss."""

    def __init__(self, learner: nn.Module, frozen: Frozen, min_snr: float = 0.0) -> None:
        super().__init__(learner)
        self._frozen = frozen  # not a submodule: nothing of it is trained, stored or shared
        self._min_snr = min_snr

    def identify(self, batch: Batch) -> KeyValues:
        """K' and V' of a batch's identities, with gradients to what trains. Subclasses say how."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """The loss of each sample, `(b,)` float32."""
        frozen = self._frozen
        latents, _, alpha, output = self._predict(batch)
        target = make_target(latents, batch.noise, alpha, frozen.prediction)
        error = (output - target).square().mean(dim=(1, 2, 3))
        return min_snr_weight(alpha, frozen.prediction, self._min_snr) * error

    @torch.no_grad()
    def denoise(self, batch: Batch) -> Tensor:
        """Return the pictures that the model predicts, `(b, c, h, w)`, in its scale of latents."""
        _, noised, alpha, output = self._predict(batch)
        return estimate_z0(noised, output, alpha, self._frozen.prediction)

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scaled latents, noised ones, alpha `(b,)`, and the model's output; float32."""
        frozen = self._frozen
        latents = frozen.scale(batch.latents)
        alpha = frozen.alphas_cumprod.to(latents)[batch.times]
        noised = add_noise(latents, batch.noise, alpha)
        output = frozen.predict(
            noised, batch.times, self.identify(batch), batch.sizes, batch.captions
        )
        return latents, noised, alpha, output.float()


class Objective(Learner):
    """An adapter learns to make identities of all people."""

    def __init__(self, adapter: Adapter, frozen: Frozen, min_snr: float = 0.0) -> None:
        super().__init__(adapter, frozen, min_snr)

    @property
    def adapter(self) -> Adapter:
        return cast(Adapter, self.learner)

    def identify(self, batch: Batch) -> KeyValues:
        tokens = self.adapter.mapper(batch.face, batch.clip)  # float32: it is small
        return self.adapter.project(tokens.to(self._frozen.dtype))

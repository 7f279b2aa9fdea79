"""The masked two-phase diffusion loss (StableIdentity, section 3.3).

Early in denoising, when the layout is decided, the loss compares predictions. Later, when the face
is drawn, it compares the latents without noise that the predictions imply. Both losses weigh the
face fully and the hair a little, and ignore the rest of the photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ..training.objective import Prediction, estimate_z0, make_target
from ..words.masks import masked_error

BORDER = 0.6
"""The loss compares predictions above this share of the timesteps."""
_Z0 = 1 / 0.18215**2
"""The weight of the loss on latents without noise: SD's scale factor, for SDXL as well."""


class Phases(Enum):
    """Which of the two losses are used; the paper's ablations use one at all timesteps."""

    BOTH = "two phases"
    NOISE = "noise alone"
    RECONSTRUCTION = "reconstruction alone"


@dataclass(frozen=True)
class Noised:
    """A batch with its noise added.

    Attributes:
        latents, noise, noised: `(b, c, h, w)`; `noised` is the latents with the noise.
        alpha: `(b,)`, the schedule's cumulative product.
        is_early: `(b,)` bool: whether the timestep is above the border.
    """

    latents: Tensor
    noise: Tensor
    noised: Tensor
    alpha: Tensor
    is_early: Tensor


def choose_phase(times: Tensor, count: int, phases: Phases) -> Tensor:
    """Return `(b,)` bool: whether predictions are compared at `times`, of `count` timesteps."""
    if phases is Phases.BOTH:
        return times > BORDER * count
    return torch.full_like(times, phases is Phases.NOISE, dtype=torch.bool)


def two_phase_loss(
    output: Tensor, at: Noised, face: Tensor, hair: Tensor, prediction: Prediction
) -> Tensor:
    """Return the loss of each sample `(b,)`; the mean over the batch is the loss of the step.

    The samples of each phase are averaged separately, and the two means are added.

    Early, the output is compared with what the model should predict, noise or velocity, as in the
    official code. Later, `z0` is derived from either.

    Args:
        output: `(b, c, h, w)` float32, as the model gives it.
        face, hair: `(b, 1, h, w)` of 0 and 1.
    """
    target = make_target(at.latents, at.noise, at.alpha, prediction)
    early = masked_error(output - target, face, hair)
    clean = estimate_z0(at.noised, output, at.alpha, prediction)
    late = _Z0 * masked_error(clean - at.latents, face, hair)
    count = torch.where(at.is_early, at.is_early.sum(), (~at.is_early).sum())
    return torch.where(at.is_early, early, late) * len(output) / count

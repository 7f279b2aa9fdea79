"""One step of identity-enhanced training (Infinite-ID, figure 'decoupling', left).

The noised target is a whole photo, the identity comes from a *different* photo of the same person,
there is no prompt, and the text cross-attention is inactive. Trainable: the two mappers and the
projections K', V'. The loss is the plain denoising loss, `E || eps - eps_theta(z_t, t, c_id) ||^2`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from ..adapters.adapter import Adapter
from ..identities.projections import KeyValues

Predict = Callable[[Tensor, Tensor, KeyValues], Tensor]
"""`(z_t (b, c, h, w), t (b,) long, K' and V' per block) -> predicted noise (b, c, h, w)`."""


@dataclass(frozen=True)
class Pairs:
    """A batch of pairs of photos.

    Attributes:
        latents: `(b, c, h, w)` of the target photos, in the model's scale.
        face: `(b, face_width)` of the other photos of the same people.
        clip: `(b, l, clip_width)` likewise, last hidden states.
    """

    latents: Tensor
    face: Tensor
    clip: Tensor


def drop_identity(
    pairs: Pairs, nothing: Tensor, probability: float, generator: torch.Generator
) -> Pairs:
    """Replace some identities by none: a zero face vector and the features of the zero picture.

    Args:
        nothing: `(1, l, clip_width)`, as inference gives its unconditional rows.
    """
    dropped = torch.rand(len(pairs.face), generator=generator) < probability
    dropped = dropped.to(pairs.face.device)
    return replace(
        pairs,
        face=torch.where(dropped[:, None], 0, pairs.face),
        clip=torch.where(dropped[:, None, None], nothing, pairs.clip),
    )


def identity_loss(
    adapter: Adapter,
    predict: Predict,
    pairs: Pairs,
    alphas_cumprod: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The denoising loss, a scalar with gradients to the adapter's parameters.

    Args:
        alphas_cumprod: `(steps,)`, the noise schedule.
        generator: a CPU generator; timesteps and noise are drawn from it.
    """
    latents = pairs.latents
    t = torch.randint(len(alphas_cumprod), (len(latents),), generator=generator)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    t = t.to(latents.device)
    alpha = alphas_cumprod.to(latents)[t][:, None, None, None]
    noised = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    key_values = adapter.project(adapter.mapper(pairs.face, pairs.clip))
    return mse_loss(predict(noised, t, key_values), noise)

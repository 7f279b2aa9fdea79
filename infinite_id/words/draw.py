"""Draws the person while words are learnt, to compare with a held-out photo."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ..training.draws import generator
from ..training.objective import Prediction, estimate_z0

STEPS, GUIDANCE = 20, 5.0

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Predicts for latents `(1, c, h, w)` at timesteps `(1,)`, with the person, and for no text."""


@torch.no_grad()
def draw(
    predict: Predict,
    alphas_cumprod: Tensor,
    prediction: Prediction,
    shape: tuple[int, int, int],
    number: int,
) -> Tensor:
    """Draw latents `(1, c, h, w)` in the model's own scale, by deterministic DDIM.

    Song et al. (2021), equation 12 with sigma 0.

    Args:
        alphas_cumprod, prediction: the model's noise schedule, and what it predicts.
        number: of the picture; it seeds the noise.
    """
    device = alphas_cumprod.device
    alphas = alphas_cumprod.float()
    times = torch.linspace(len(alphas) - 1, 0, STEPS + 1, device=device).round().long()
    z = torch.randn((1, *shape), generator=generator(number, "likeness")).to(device)
    for now, following in pairwise(times):
        a, b = alphas[now], alphas[following]
        with_person, without = predict(z, now[None])
        output = without + GUIDANCE * (with_person - without)
        clean = estimate_z0(z, output, a[None], prediction)
        noise = (z - a.sqrt() * clean) / (1 - a).sqrt()
        z = b.sqrt() * clean + (1 - b).sqrt() * noise
    return z

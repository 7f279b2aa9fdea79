"""Draws the person while the words are learnt, to compare with a held-out photo."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ..training.draws import generator
from ..training.objective import estimate_z0
from ..words.files import Rows
from .learner import Frozen

PROMPT = "a photo of {}, facing the camera, best quality"
STEPS, GUIDANCE = 20, 5.0


@torch.no_grad()
def draw(frozen: Frozen, rows: Rows, shape: tuple[int, int, int], number: int) -> Tensor:
    """Draw latents `(1, c, h, w)` in the model's own scale, by deterministic DDIM.

    Song et al. (2021), equation 12 with sigma 0. The negative prompt is empty.

    Args:
        rows: `(1, 2, d)` of each text encoder.
        number: of the picture; it seeds the noise.
    """
    device = frozen.alphas_cumprod.device
    alphas = frozen.alphas_cumprod.float()
    times = torch.linspace(len(alphas) - 1, 0, STEPS + 1, device=device).round().long()
    z = torch.randn((1, *shape), generator=generator(number, "likeness")).to(device)
    for now, following in pairwise(times):
        at = now[None]
        a, b = alphas[now], alphas[following]
        with_person = frozen.predict(z, at, rows, [PROMPT])
        without = frozen.predict(z, at, None, [""])
        output = without + GUIDANCE * (with_person - without)
        clean = estimate_z0(z, output, a[None], frozen.prediction)
        noise = (z - a.sqrt() * clean) / (1 - a).sqrt()
        z = b.sqrt() * clean + (1 - b).sqrt() * noise
    return z

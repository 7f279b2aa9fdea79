"""Stages `vae`, `encoder` and `decoder`: the autoencoder, a TAESD that learns our drawings.

`vae` trains both halves. `encoder` freezes the encoder and gives every latent channel mean 0 and
spread 1 over the pictures, by rescaling its last convolution. The UNet sees these latents; the
host's are the same divided by SDXL's factor, by `TAESD.vae_scale`. `decoder` trains the decoder on
for the frozen encoder, which can go on after the UNet has begun to learn the latents.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from comfy.taesd.taesd import TAESD
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from ...infinite_id.files import write_tensors
from .. import nets
from ..faces import write_png
from ..random_weights import pass_colours_through
from ..shapes import LATENT_CHANNELS
from ..world.canvas import SIDE
from . import workers
from .lesson import Recipe, Weights, averaged_weights, train
from .pictures import held_out, load
from .start import initialise

ENCODER = "encoder.safetensors"  # the whole autoencoder, as it was frozen
PICTURES = 8192  # more would teach these filters nothing new
CROP = 96
AT_FEATURE = 0.6  # share of the crops that have an eye, the nose or the mouth near their middle
SPREAD_FEATURE = 14.0  # pixels between that and the middle
EDGES = 0.75  # weight of the differences between neighbouring pixels
NOISE = 0.02  # on the latents, so that the decoder forgives the UNet's errors
SPREAD = 0.01  # weight of the pull towards spread one
SHEET_EVERY = 4000  # samples
SHOWN, ON_SHEET = 6, 12  # people, and their pictures in a row
RECIPE = Recipe(rate=1e-3, average=0.995, batch=4, warm_up=50, save_every=250)
DECODER_RECIPE = Recipe(rate=5e-4, average=0.998, batch=4, warm_up=50, save_every=250)


def train_vae(folder: Path, samples: int) -> None:
    net = nets.autoencoder().to(memory_format=torch.channels_last)  # three times as fast
    initialise(net)
    colours = net.state_dict()
    pass_colours_through(colours)  # it starts as a mosaic, much better than random weights
    net.load_state_dict(colours)
    net.vae_scale.requires_grad = net.vae_shift.requires_grad = False
    show = partial(_show, folder, "vae")
    train(folder, "vae", net, RECIPE, _Crops(folder), samples, show, SHEET_EVERY)


def freeze_encoder(folder: Path, _: int) -> None:
    """Freeze the encoder once: latents, decoder and UNet do not fit another encoder."""
    path = folder / ENCODER
    if path.exists() or workers.number() > 0:
        return
    net = nets.autoencoder().to(workers.device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.load_state_dict(averaged_weights(folder, "vae"))
    normalise(net, as_input(load(folder / "pictures", 64).pixels).to(workers.device()))
    write_tensors(path, net.cpu().state_dict(), {})


def train_decoder(folder: Path, samples: int) -> None:
    net = nets.autoencoder().to(memory_format=torch.channels_last)
    net.load_state_dict(load_file(folder / ENCODER))
    net.taesd_encoder.requires_grad_(False)
    net.vae_scale.requires_grad = net.vae_shift.requires_grad = False
    show = partial(_show, folder, "decoder")
    lesson = _DecoderCrops(folder)
    train(folder, "decoder", net, DECODER_RECIPE, lesson, samples, show, SHEET_EVERY)


def trained(folder: Path) -> TAESD:
    """Load the autoencoder with the best decoder so far."""
    net = nets.autoencoder()
    has_decoder = (folder / "decoder").exists()
    own = averaged_weights(folder, "decoder") if has_decoder else load_file(folder / ENCODER)
    net.load_state_dict(own)
    return net.eval()


class _Crops:
    """Both halves learn from squares `(n, 3, 96, 96)` in 0..1, cut out of the drawn pictures."""

    def __init__(self, folder: Path) -> None:
        self.pictures = load(folder / "pictures", PICTURES)

    def draw(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Return the squares and normal noise for their latents."""
        rng, pictures = np.random.default_rng([first, 12]), self.pictures
        crops = []
        for n in rng.integers(len(pictures.pixels), size=count):
            middle = rng.uniform(0, SIDE, 2)
            if rng.random() < AT_FEATURE:
                feature = pictures.landmarks[n, rng.integers(5)]
                middle = feature + rng.normal(0, SPREAD_FEATURE, 2)
            # On the grid of the latents, as whole pictures are: a style's patterns fit it.
            x, y = np.clip((middle - CROP / 2) / 8, 0, (SIDE - CROP) / 8).astype(int) * 8
            crops.append(pictures.pixels[n, y : y + CROP, x : x + CROP])
        noise = rng.standard_normal((count, LATENT_CHANNELS, CROP // 8, CROP // 8), np.float32)
        return as_input(np.stack(crops)), torch.from_numpy(noise)

    def loss(self, net: TAESD, pixels: Tensor, noise: Tensor) -> Tensor:
        latents = _encode(net, pixels)
        means, spreads = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        pull = (means.square() + (spreads + 1e-3).log().square()).mean()
        return _error(net, latents, pixels, noise) + SPREAD * pull


class _DecoderCrops(_Crops):
    """The decoder alone learns."""

    def loss(self, net: TAESD, pixels: Tensor, noise: Tensor) -> Tensor:
        with torch.no_grad():
            latents = _encode(net, pixels)
        return _error(net, latents, pixels, noise)


def _encode(net: TAESD, pixels: Tensor) -> Tensor:
    with nets.half_precision():
        latents: Tensor = net.taesd_encoder(pixels)
    return latents.float()


def as_input(pixels: NDArray[np.uint8]) -> Tensor:
    """`(n, h, w, 3)` -> `(n, 3, h, w)` in 0..1, channels last."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def _error(net: TAESD, latents: Tensor, pixels: Tensor, noise: Tensor) -> Tensor:
    """Return L1 of the pixels, plus L1 of their differences to the right and below."""
    with nets.half_precision():
        output = net.taesd_decoder(latents + NOISE * noise).float()
    down, across = (F.l1_loss(output.diff(dim=d), pixels.diff(dim=d)) for d in (2, 3))
    return F.l1_loss(output, pixels) + EDGES * (down + across)


@torch.no_grad()
def normalise(net: TAESD, pixels: Tensor) -> None:
    """Scale each latent channel to mean 0 and spread 1, and make the decoder undo this.

    The decoder's first convolution pads with zeros behind a soft clamp, so this is exact only in
    the middle of a picture and for small latents: `decoder` goes on from here.
    """
    with nets.half_precision():
        latents = torch.cat([net.taesd_encoder(part).float() for part in pixels.split(16)])
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    last: Any = net.taesd_encoder[-1]
    first: Any = net.taesd_decoder[1]
    last.weight /= spread[:, None, None, None]
    last.bias.sub_(mean).div_(spread)
    first.bias += (first.weight * mean[:, None, None]).sum((1, 2, 3))
    first.weight *= spread[:, None, None]


@torch.inference_mode()
def _show(folder: Path, name: str, samples: int, weights: Weights) -> dict[str, float]:
    """Write a sheet of people never trained on: drawn ones above, reconstructed ones below.

    Returns:
        Their mean absolute error, 0..1.
    """
    trained = nets.autoencoder().to(workers.device())
    trained.load_state_dict(weights)
    pixels = as_input(held_out(SHOWN).pixels).to(workers.device())
    with nets.half_precision():
        parts = [trained.taesd_decoder(trained.taesd_encoder(x)).float() for x in pixels.split(8)]
    output = torch.cat(parts)
    rows = [
        torch.cat(list(half), dim=2)
        for n in range(0, 2 * ON_SHEET, ON_SHEET)
        for half in (pixels[n : n + ON_SHEET], output[n : n + ON_SHEET])
    ]
    image = (torch.cat(rows, dim=1).clamp(0, 1) * 255).round().byte()
    write_png(folder / f"{name}-{samples:07d}.png", image.permute(1, 2, 0).cpu().numpy())
    return {"held_out_l1": float((output - pixels).abs().mean())}

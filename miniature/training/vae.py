"""Stages `vae`, `encoder` and `decoder`: the autoencoder, a TAESD that learns our drawings.

`vae` trains both halves. `encoder` freezes the encoder and gives every latent channel mean 0 and
spread 1 over the pictures, by rescaling its last convolution: its latents are what the UNet sees,
and the host's are those divided by SDXL's factor, as `TAESD.vae_scale` does. `decoder` trains the
decoder on for the frozen encoder; that can go on after the UNet has begun to learn the latents.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from comfy.taesd.taesd import TAESD
from torch import Tensor

from .. import nets
from ..random_weights import pass_colours_through
from . import workers
from .pictures import chunk_paths, held_out, load
from .run import Run, averaged_weights, generator
from .start import initialise

CROP, BATCH = 64, 4
FACE_SPREAD = 28.0  # pixels between a crop's middle and the face's
NOISE = 0.02  # on the latents, so that the decoder forgives the UNet's errors
SPREAD = 0.01  # weight of the pull towards spread one


def train_vae(folder: Path, minutes: float) -> None:
    net = nets.autoencoder().to(memory_format=torch.channels_last)  # three times as fast
    initialise(net)
    colours = net.state_dict()
    pass_colours_through(colours)  # a mosaic: much better than nothing to start from
    net.load_state_dict(colours)
    net.vae_scale.requires_grad = net.vae_shift.requires_grad = False
    run = Run(folder, "vae", net, lr=1e-3, decay=0.995)
    crops = _Crops(folder)

    def loss_of(step: int) -> tuple[Tensor, int]:
        pixels = crops.draw(step)
        with nets.half_precision():
            latents = net.taesd_encoder(pixels).float()
        means, spreads = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        pull = (means.square() + (spreads + 1e-3).log().square()).mean()
        return _error(net, latents, pixels, step) + SPREAD * pull, BATCH

    run.train(minutes, loss_of, warm_up=50)
    run.log(quality(net, run.averaged()))


def freeze_encoder(folder: Path, _: float = 0.0) -> None:
    """Once: latents, decoder and UNet of another encoder would be worthless."""
    path = folder / "encoder.pt"
    if path.exists() or workers.number() > 0:
        return
    net = nets.autoencoder()
    net.load_state_dict(averaged_weights(folder, "vae"))
    normalise(net, _Crops(folder, chunks=1).pixels.permute(0, 3, 1, 2)[:256].float() / 255)
    torch.save(net.state_dict(), path)


def train_decoder(folder: Path, minutes: float) -> None:
    net = nets.autoencoder().to(memory_format=torch.channels_last)
    net.load_state_dict(torch.load(folder / "encoder.pt", weights_only=True))
    net.taesd_encoder.requires_grad_(False)
    net.vae_scale.requires_grad = net.vae_shift.requires_grad = False
    run = Run(folder, "decoder", net, lr=5e-4, decay=0.998)
    crops = _Crops(folder)

    def loss_of(step: int) -> tuple[Tensor, int]:
        pixels = crops.draw(step)
        with torch.no_grad(), nets.half_precision():
            latents = net.taesd_encoder(pixels).float()
        return _error(net, latents, pixels, step), BATCH

    run.train(minutes, loss_of)
    run.log(quality(net, run.averaged()))


def trained(folder: Path) -> TAESD:
    """The autoencoder with the best decoder there is."""
    net = nets.autoencoder()
    path = folder / "decoder.pt"
    state = averaged_weights(folder, "decoder") if path.exists() else None
    net.load_state_dict(state or torch.load(folder / "encoder.pt", weights_only=True))
    return net.eval()


class _Crops:
    """Squares out of the drawn pictures, `(4, 3, 64, 64)` in 0..1; most of them show a face."""

    def __init__(self, folder: Path, chunks: int = 6) -> None:
        pictures = load(chunk_paths(folder / "pictures")[:chunks])
        self.pixels = torch.from_numpy(pictures.pixels)
        self.middles = torch.from_numpy(pictures.boxes).reshape(-1, 2, 2).mean(1)

    def draw(self, step: int) -> Tensor:
        random = generator(step)
        which = torch.randint(len(self.pixels), (BATCH,), generator=random)
        spread = torch.randn(BATCH, 2, generator=random) * FACE_SPREAD
        corners = ((self.middles[which] + spread - CROP / 2) / 8).round().long() * 8
        corners = corners.clamp(0, 128 - CROP)
        crops = [
            self.pixels[n, y : y + CROP, x : x + CROP]
            for n, (x, y) in zip(which.tolist(), corners.tolist(), strict=True)
        ]
        return torch.stack(crops).permute(0, 3, 1, 2).float() / 255  # channels last


def _error(net: TAESD, latents: Tensor, pixels: Tensor, step: int) -> Tensor:
    """L1 of the pixels, and of their differences to the right and below."""
    noise = torch.randn(latents.shape, generator=generator(step + 2**40)) * NOISE
    with nets.half_precision():
        output = net.taesd_decoder(latents + noise).float()
    down, across = (F.l1_loss(output.diff(dim=d), pixels.diff(dim=d)) for d in (2, 3))
    return F.l1_loss(output, pixels) + 0.5 * (down + across)


@torch.no_grad()
def normalise(net: TAESD, pixels: Tensor) -> None:
    """Mean 0 and spread 1 for every latent channel; the decoder takes the old latents back.

    The decoder's first convolution pads with zeros behind a soft clamp, so this is exact only in
    the middle of a picture and for small latents: `decoder` goes on from here.
    """
    latents = torch.cat([net.taesd_encoder(part) for part in pixels.split(16)])
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    last, first = net.taesd_encoder[-1], net.taesd_decoder[1]
    last.weight /= spread[:, None, None, None]
    last.bias.sub_(mean).div_(spread)
    first.bias += (first.weight * mean[:, None, None]).sum((1, 2, 3))
    first.weight *= spread[:, None, None]


@torch.inference_mode()
def quality(net: TAESD, weights: dict[str, Tensor], people: int = 25) -> str:
    """Mean absolute error, in 0..1, on pictures of people that were never trained on."""
    net.load_state_dict(weights)
    pixels = torch.from_numpy(held_out(people).pixels).permute(0, 3, 1, 2).float() / 255
    with nets.half_precision():
        parts = [net.taesd_decoder(net.taesd_encoder(x)).float() - x for x in pixels.split(10)]
    return f"held out: L1 {torch.cat(parts).abs().mean():.4f}"

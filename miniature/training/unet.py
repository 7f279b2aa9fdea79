"""Stages `latents` and `unet`: the diffusion model and its text encoders, trained together.

The first samples are pictures at half the size: they cost a fourth, and teach what words mean and
how a picture is laid out.

The text encoders are part of this stage: the captions have a few hundred words, whose only meaning
is their effect on pictures. So no other task would teach features that serve the UNet better.
"""

from __future__ import annotations

from pathlib import Path

import comfy.model_base
import numpy as np
import torch
from comfy.taesd.taesd import TAESD
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from ...infinite_id.training.draws import generator
from .. import nets
from ..host import Miniature
from ..shapes import UNETS
from ..world.canvas import SIDE
from . import text, vae, workers
from .lesson import Recipe, Weights
from .lesson import train as train_net
from .pictures import captions, chunk_paths, load, numbers_in
from .sheets import write_sheet
from .start import initialise

VARIANT = "portrait"
CHECKPOINT = f"miniature-{VARIANT}.safetensors"
RECIPE = Recipe(rate=1e-3, average=0.9995, batch=32)
NO_PROMPT = 0.1
MIN_SNR = 5.0
POOL, COARSE = 4, 0.1
SMALL = 0.6  # share of the samples whose pictures are half as large
SHEET_EVERY = 20_000  # samples


@torch.inference_mode()
def encode_pictures(folder: Path, _: int) -> None:
    """Writes the latents of every chunk that has none yet.

    `latents (1024, 4, 32, 32)` are of the pictures at full size, `small (1024, 4, 16, 16)` of the
    same pictures at half the size.
    """
    net = vae.trained(folder).to(workers.device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = load(folder / "pictures").pixels
    (folder / "latents").mkdir(exist_ok=True)
    for chunk in workers.share(chunk_paths(folder / "pictures")):
        path = folder / "latents" / chunk.name
        if path.exists():
            continue
        own = pixels[numbers_in(chunk)]
        latents, small = [], []
        for n in range(0, len(own), 16):
            part = vae.as_input(own[n : n + 16]).to(workers.device())
            latents.append(_encode(net, part))
            small.append(_encode(net, interpolate(part, scale_factor=0.5, mode="area")))
        unfinished = path.with_suffix(".partial.npz")
        np.savez(unfinished, latents=np.concatenate(latents), small=np.concatenate(small))
        unfinished.rename(path)


def _encode(net: TAESD, pixels: Tensor) -> NDArray[np.float16]:
    with nets.half_precision():
        return net.taesd_encoder(pixels).half().cpu().numpy()


class Painter(torch.nn.Module):
    """The UNet and the text encoders as one net, for the optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = nets.unet(VARIANT)
        self.text = nets.text_encoders()
        self.text.requires_grad_(True)
        for encoder in (self.text.clip_l, self.text.clip_g):
            encoder.logit_scale.requires_grad = False
        unread = self.text.clip_l.transformer  # SDXL reads its last hidden states but one
        words = unread.text_model
        for part in (unread.text_projection, words.encoder.layers[-1], words.final_layer_norm):
            part.requires_grad_(False)

    def initialise(self) -> None:
        """Set the last layer of each residual branch to zero, as in the original networks."""
        initialise(self)
        ends = ("out_layers.3.weight", "proj_out.weight", "out.2.weight")
        for name, weight in self.unet.named_parameters():
            if name.endswith(ends):
                torch.nn.init.zeros_(weight)


class Lessons:
    """Draws random samples of the stored latents; the first `small` ones are of half the size."""

    def __init__(self, folder: Path, small: int = 0) -> None:
        self._small_until = small
        chunks = [np.load(path) for path in chunk_paths(folder / "latents")]
        self.latents, self.small = (
            torch.from_numpy(np.concatenate([chunk[name] for chunk in chunks]))
            for name in ("latents", "small")
        )
        self.prompts = text.Prompts(captions(load(folder / "pictures", len(self.latents))))
        config = Miniature(UNETS[VARIANT].config())
        sampling = comfy.model_base.model_sampling(config, comfy.model_base.ModelType.EPS)
        self.sampling = sampling.to(workers.device())

    def draw(self, first: int, count: int) -> tuple[Tensor, ...]:
        """Return latents, the prompts' numbers, timesteps and noise."""
        random = generator(0, "painting", first)
        which = torch.randint(len(self.latents), (count,), generator=random)
        latents = (self.small if first < self._small_until else self.latents)[which].float()
        which[torch.rand(count, generator=random) < NO_PROMPT] = -1
        times = torch.randint(len(self.sampling.sigmas), (count,), generator=random)
        return latents, which, times, torch.randn(latents.shape, generator=random)

    def loss(
        self, net: Painter, latents: Tensor, which: Tensor, times: Tensor, noise: Tensor
    ) -> Tensor:
        """Return `min(snr, 5) / snr * |eps - prediction|^2`, plus the error of a coarse x0.

        A picture's colours and layout are only a few of a thousand numbers. Early in the sampling
        their error is large, but the error of single pixels hardly shows it.
        """
        sigmas = self.sampling.sigmas[times]
        noised = self.sampling.noise_scaling(sigmas, noise, latents)
        inputs = self.sampling.calculate_input(sigmas, noised)
        with nets.half_precision():
            context, vector = self.prompts.encode(net.text, which.cpu(), 8 * latents.shape[-1])
            prediction = net.unet(inputs, times.float(), context=context, y=vector).float()
        error = prediction - noise
        weights = (MIN_SNR * sigmas.square()).clamp(max=1)
        fine = weights * error.square().mean((1, 2, 3))
        coarse = sigmas.square() * avg_pool2d(error, POOL).square().mean((1, 2, 3))
        return (fine + COARSE * coarse).mean()


def train(folder: Path, samples: int) -> None:
    text.make_trainable()
    net = Painter()
    net.initialise()
    small = round(SMALL * samples)

    def show(seen: int, averaged: Weights) -> dict[str, str]:
        write_checkpoint(folder, averaged)
        sheet = folder / f"sheet-{seen:08d}.png"
        write_sheet(folder / CHECKPOINT, sheet, SIDE // 2 if seen < small else SIDE)
        return {"sheet": sheet.name}

    train_net(folder, "unet", net, RECIPE, Lessons(folder, small), samples, show, SHEET_EVERY)


def write_checkpoint(folder: Path, averaged: Weights) -> None:
    """Write the averaged weights and the autoencoder as a checkpoint for the host's loader."""
    unet, words = (
        {name.removeprefix(part): x for name, x in averaged.items() if name.startswith(part)}
        for part in ("unet.", "text.")
    )
    pixels = vae.trained(folder).state_dict()
    path = folder / CHECKPOINT
    unfinished = path.with_suffix(".partial")
    save_file(nets.checkpoint(VARIANT, unet, words, pixels), unfinished)
    unfinished.rename(path)


def replace_autoencoder(folder: Path) -> None:
    """Put the newest decoder into the checkpoint: it learns on after the checkpoint was written."""
    config = Miniature(UNETS[VARIANT].config())
    pixels = config.process_vae_state_dict_for_saving(vae.trained(folder).state_dict())
    path = folder / CHECKPOINT
    unfinished = path.with_suffix(".partial")
    save_file(load_file(path) | nets.as_half(pixels), unfinished)
    unfinished.rename(path)

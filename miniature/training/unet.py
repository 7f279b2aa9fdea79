"""Stages `latents` and `unet`: the diffusion model and its text encoders, trained together.

The first samples are pictures at half the size: they cost a fourth, and teach what words mean and
how a picture is laid out.

The text encoders are part of this stage: the captions have a few hundred words, whose only meaning
is their effect on pictures. So no other task would teach features that serve the UNet better.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import comfy.model_base
import numpy as np
import torch
from comfy.taesd.taesd import TAESD
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from .. import nets
from ..host import Miniature
from ..shapes import UNETS
from ..world.canvas import SIDE
from . import text, vae, workers
from .pictures import captions, chunk_paths, load, numbers_in
from .run import Run, generator
from .sheets import write_sheet
from .start import initialise

VARIANT = "portrait"
CHECKPOINT = f"miniature-{VARIANT}.safetensors"
BATCH = 16
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
            part = vae.as_input(own[n : n + 16])
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
        self.text.clip_l.transformer.text_projection.requires_grad_(False)  # SDXL ignores it

    def initialise(self) -> None:
        """Set the last layer of each residual branch to zero, as in the original networks."""
        initialise(self)
        ends = ("out_layers.3.weight", "proj_out.weight", "out.2.weight")
        for name, weight in self.unet.named_parameters():
            if name.endswith(ends):
                torch.nn.init.zeros_(weight)


class Lessons:
    """Draws random samples of the stored latents; the same step gives the same samples."""

    def __init__(self, folder: Path) -> None:
        chunks = [np.load(path) for path in chunk_paths(folder / "latents")]
        self.latents, self.small = (
            torch.from_numpy(np.concatenate([chunk[name] for chunk in chunks]))
            for name in ("latents", "small")
        )
        self.prompts = text.Prompts(captions(load(folder / "pictures", len(self.latents))))
        config = Miniature(UNETS[VARIANT].config())
        sampling = comfy.model_base.model_sampling(config, comfy.model_base.ModelType.EPS)
        self.sampling = sampling.to(workers.device())

    def loss(self, net: Painter, count: int, is_small: bool, step: int) -> Tensor:
        """Return `min(snr, 5) / snr * |eps - prediction|^2`, plus the error of a coarse x0.

        A picture's colours and layout are only a few of a thousand numbers. Early in the sampling
        their error is large, but the error of single pixels hardly shows it.
        """
        random, device = generator(step), workers.device()
        which = torch.randint(len(self.latents), (count,), generator=random)
        latents = (self.small if is_small else self.latents)[which].float().to(device)
        which[torch.rand(count, generator=random) < NO_PROMPT] = -1
        times = torch.randint(len(self.sampling.sigmas), (count,), generator=random).to(device)
        noise = torch.randn(latents.shape, generator=random).to(device)
        sigmas = self.sampling.sigmas[times]
        noised = self.sampling.noise_scaling(sigmas, noise, latents)
        inputs = self.sampling.calculate_input(sigmas, noised)
        with nets.half_precision():
            context, vector = self.prompts.encode(net.text, which, 8 * latents.shape[-1])
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
    run = Run(folder, "unet", net, lr=1e-3, decay=0.9995, batch=BATCH)
    lessons = Lessons(folder)
    run.log(f"{len(lessons.latents)} pictures")
    small = round(SMALL * samples / SHEET_EVERY) * SHEET_EVERY
    while run.samples < samples:
        is_small = run.samples < small
        until = min(samples, run.samples + SHEET_EVERY)
        run.train(until, partial(lessons.loss, net, run.batch, is_small), finish=samples)
        if workers.number() == 0:
            write_checkpoint(folder, run)
            path = folder / f"sheet-{run.samples:08d}.png"
            write_sheet(folder / CHECKPOINT, path, SIDE // 2 if is_small else SIDE)


def write_checkpoint(folder: Path, run: Run) -> None:
    """Write the averaged weights and the autoencoder as a checkpoint for the host's loader."""
    averaged = run.averaged()
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

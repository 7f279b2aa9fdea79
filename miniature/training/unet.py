"""Stages `latents` and `unet`: the diffusion model and its text encoders, trained together.

The text encoders are part of this stage: the captions' few hundred words mean nothing but what they
do to pictures, so no other task would teach features that serve the UNet better.
"""

from __future__ import annotations

from pathlib import Path

import comfy.model_base
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .. import nets
from ..host import Miniature
from ..shapes import UNETS
from . import text, vae, workers
from .pictures import chunk_paths
from .run import Run, generator
from .sheets import write_sheet
from .start import initialise

VARIANT = "tiny"
CHECKPOINT = f"miniature-{VARIANT}.safetensors"
BATCH = 32
NO_PROMPT = 0.1
MIN_SNR = 5.0
POOL, COARSE = 4, 0.1
SHEET_EVERY = 10.0  # minutes


@torch.inference_mode()
def encode_pictures(folder: Path, _: float) -> None:
    """Writes the latents `(1024, 4, 16, 16)` and captions of every chunk that has none yet."""
    net = vae.trained(folder).to(memory_format=torch.channels_last)
    (folder / "latents").mkdir(exist_ok=True)
    for chunk in workers.share(chunk_paths(folder / "pictures")):
        path = folder / "latents" / chunk.name
        if path.exists():
            continue
        data = np.load(chunk)
        pixels = torch.from_numpy(data["pixels"]).permute(0, 3, 1, 2)
        with nets.half_precision():
            parts = [net.taesd_encoder(part.float() / 255).float() for part in pixels.split(16)]
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, latents=torch.cat(parts).half().numpy(), captions=data["captions"])
        partial.rename(path)


class Painter(torch.nn.Module):
    """UNet and text encoders as one net for the optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = nets.unet(VARIANT)
        self.text = nets.text_encoders()
        self.text.requires_grad_(True)
        for encoder in (self.text.clip_l, self.text.clip_g):
            encoder.logit_scale.requires_grad = False
        self.text.clip_l.transformer.text_projection.requires_grad_(False)  # SDXL ignores it

    def initialise(self) -> None:
        """Zero where a branch joins the trunk, as the original networks begin."""
        initialise(self)
        ends = ("out_layers.3.weight", "proj_out.weight", "out.2.weight")
        for name, weight in self.unet.named_parameters():
            if name.endswith(ends):
                torch.nn.init.zeros_(weight)


class Lessons:
    """Random samples out of the stored latents, the same for the same step."""

    def __init__(self, folder: Path) -> None:
        chunks = [np.load(path) for path in chunk_paths(folder / "latents")]
        self.latents = torch.from_numpy(np.concatenate([c["latents"] for c in chunks]))
        self.prompts = text.Prompts([str(words) for c in chunks for words in c["captions"]])
        config = Miniature(UNETS[VARIANT].config())
        self.sampling = comfy.model_base.model_sampling(config, comfy.model_base.ModelType.EPS)

    def loss(self, net: Painter, step: int) -> Tensor:
        """`min(snr, 5) / snr * |eps - prediction|^2`, and the same for what is coarse in x0.

        A picture's colours and layout are a few of a thousand numbers; early in the sampling
        their error is the noise's, and large, while that of a pixel hardly shows it.
        """
        random = generator(step)
        which = torch.randint(len(self.latents), (BATCH,), generator=random)
        latents = self.latents[which].float()
        which[torch.rand(BATCH, generator=random) < NO_PROMPT] = -1
        times = torch.randint(len(self.sampling.sigmas), (BATCH,), generator=random)
        noise = torch.randn(latents.shape, generator=random)
        sigmas = self.sampling.sigmas[times]
        noised = self.sampling.noise_scaling(sigmas, noise, latents)
        inputs = self.sampling.calculate_input(sigmas, noised)
        with nets.half_precision():
            context, vector = self.prompts.encode(net.text, which)
            prediction = net.unet(inputs, times.float(), context=context, y=vector).float()
        error = prediction - noise
        weights = (MIN_SNR * sigmas.square()).clamp(max=1)
        fine = weights * error.square().mean((1, 2, 3))
        coarse = sigmas.square() * avg_pool2d(error, POOL).square().mean((1, 2, 3))
        return (fine + COARSE * coarse).mean()


def train(folder: Path, minutes: float) -> None:
    text.make_trainable()
    net = Painter()
    net.initialise()
    run = Run(folder, "unet", net, lr=1e-3, decay=0.9995)
    lessons = Lessons(folder)
    run.log(f"{len(lessons.latents)} pictures")
    while run.seconds < 60 * minutes:
        until = min(minutes, run.seconds / 60 + SHEET_EVERY)
        run.train(until, lambda step: (lessons.loss(net, step), BATCH), finish=minutes)
        if workers.number() == 0:
            write_checkpoint(folder, run)
            write_sheet(folder, folder / f"sheet-{run.samples:08d}.png")


def write_checkpoint(folder: Path, run: Run) -> None:
    """The averaged weights and the autoencoder as a checkpoint that the host's loader takes."""
    averaged = run.averaged()
    unet, words = (
        {name.removeprefix(part): x for name, x in averaged.items() if name.startswith(part)}
        for part in ("unet.", "text.")
    )
    pixels = vae.trained(folder).state_dict()
    path = folder / CHECKPOINT
    partial = path.with_suffix(".partial")
    save_file(nets.checkpoint(VARIANT, unet, words, pixels), partial)
    partial.rename(path)


def replace_autoencoder(folder: Path) -> None:
    """The decoder learns on after the checkpoint was written."""
    config = Miniature(UNETS[VARIANT].config())
    pixels = config.process_vae_state_dict_for_saving(vae.trained(folder).state_dict())
    path = folder / CHECKPOINT
    partial = path.with_suffix(".partial")
    save_file(load_file(path) | nets.as_half(pixels), partial)
    partial.rename(path)

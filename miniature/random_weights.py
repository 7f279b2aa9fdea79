"""Writes the miniature's files with random weights; the same seed gives the same files.

`python -m pack.miniature.random_weights --host PATH --out DIR --variant deep`
"""

from __future__ import annotations

import argparse
import math
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file

from .shapes import UNETS

# Standard deviation of a layer's output at input 1, by the end of its name; 1 for all others.
# Residual branches are small, as in a trained net. Queries and keys stay at 1: sharper attention
# makes seventy layers chaotic, so that a rounding error changes the picture.
GAINS = {
    "position_embedding.weight": 0.3,
    "label_emb.0.0.weight": 3.0,  # the pooled prompt is 96 of 1632 inputs
    "label_emb.0.2.weight": 2.0,
    "attn2.to_v.weight": 2.0,
    "to_out.0.weight": 0.5,
    "ff.net.2.weight": 0.2,
    "out_layers.3.weight": 0.5,
    "conv.4.weight": 0.3,  # the autoencoder's blocks
}
STRIDED = ("2", "6", "10")  # the encoder's halving layers
Tensors = dict[str, torch.Tensor]


def write(folder: Path, variant: str = "deep", seed: int = 0) -> dict[str, Path]:
    """Writes checkpoint and CLIP vision model; the host's `comfy` must be importable."""
    from . import nets

    paths = {
        "checkpoint": folder / f"miniature-{variant}.safetensors",
        "clip_vision": folder / "miniature-clip-vision.safetensors",
    }
    folder.mkdir(parents=True, exist_ok=True)
    unet, text, vae = (
        randomise(net, seed)
        for net in (nets.unet(variant), nets.text_encoders(), nets.autoencoder())
    )
    pass_noise_through(unet)
    pass_colours_through(vae)
    save_file(nets.checkpoint(variant, unet, text, vae), paths["checkpoint"])
    save_file(nets.as_half(randomise(nets.clip_vision(), seed)), paths["clip_vision"])
    return paths


def randomise(module: torch.nn.Module, seed: int) -> Tensors:
    return {name: _draw(name, x, seed) for name, x in module.state_dict().items()}


def _draw(name: str, like: torch.Tensor, seed: int) -> torch.Tensor:
    """Draw a tensor. The name is part of the seed, so the order of the tensors does not matter."""
    if like.ndim == 0:
        return like  # a setting, such as the scale of the latents
    generator = torch.Generator().manual_seed(seed * 2**32 + zlib.crc32(name.encode()))
    noise = torch.randn(like.shape, generator=generator)
    if like.ndim == 1:
        return 0.05 * noise + (1.0 if name.endswith("weight") else 0.0)
    gain = next((gain for end, gain in GAINS.items() if name.endswith(end)), 1.0)
    inputs = 1 if "_embedding.weight" in name and like.ndim == 2 else like[0].numel()
    return noise * gain / math.sqrt(inputs)


def pass_noise_through(unet: Tensors) -> None:
    """Makes the UNet predict its own input plus a little of everything else.

    With a prediction unrelated to the noise, latents grow ten times too large and every picture
    is pure black and white. The input takes the outermost skip connection, as itself and as its
    negative, because silu(x) - silu(-x) = x.
    """
    last = max(int(name.split(".")[1]) for name in unet if name.startswith("output_blocks."))
    block = f"output_blocks.{last}.0."
    both = torch.cat([torch.eye(4), -torch.eye(4)])
    channels, inputs = unet[block + "skip_connection.weight"].shape[:2]
    take_skip = torch.eye(inputs)[inputs - channels :][: len(both)]
    _route(unet, "input_blocks.0.0", both)
    _route(unet, block + "skip_connection", take_skip)
    _route(unet, block + "out_layers.3", torch.zeros(len(both), 1))
    _route(unet, "out.2", both.T, rest=0.2)


def pass_colours_through(vae: Tensors) -> None:
    """Makes the autoencoder a mosaic: three latents are the mean colour of their 8x8 pixels."""
    colours, contrast = torch.eye(3), 4.0
    for name in [n.removesuffix(".weight") for n in vae if n.endswith(".weight")]:
        net, _, layer = name.partition(".")
        if layer.endswith("conv.4"):
            _route(vae, name, torch.zeros(3, 1))
        elif net == "taesd_encoder" and layer in STRIDED:
            _route(vae, name, colours / 4, taps=slice(1, 3))
        elif "conv" not in layer:
            _route(vae, name, colours)
    _route(vae, "taesd_encoder.14", colours * contrast, bias=-contrast / 2)
    _route(vae, "taesd_decoder.1", colours / contrast, bias=0.5)
    _route(vae, "taesd_decoder.19", colours, rest=0.05)


def _route(
    tensors: Tensors,
    layer: str,
    mix: torch.Tensor,
    bias: float = 0.0,
    rest: float = 0.0,
    taps: slice | None = None,
) -> None:
    """Makes a convolution's first outputs a mix of its first inputs, plus `rest` of the old."""
    rows, inputs = tensors[layer + ".weight"][: len(mix)], mix.shape[1]
    centre = rows.shape[-1] // 2
    taps = taps or slice(centre, centre + 1)
    rows *= rest
    rows[:, :inputs] = 0.0
    rows[:, :inputs, taps, taps] = mix[..., None, None]
    if layer + ".bias" in tensors:
        tensors[layer + ".bias"][: len(mix)] = bias


def main() -> None:
    from ..infinite_id import launch

    parser = argparse.ArgumentParser(description="Writes the miniature with random weights.")
    launch.add_host(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", choices=UNETS, default="deep")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    launch.use_host(launch.HostOptions(options.host, cpu=True))
    for path in write(options.out, options.variant, options.seed).values():
        print(path)


if __name__ == "__main__":
    main()

"""Stand-ins for the files that workflows name. Runs inside the environment.

LoRA and ControlNet are untrained: small random weights of the right shapes, so that the stock nodes
load and apply them to the miniature. The ControlNet is a control LoRA, which shares the model's
weights. The staged words of people are those of *woman* and *man*, with a little noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ..dev.cache import build, fingerprint
from .staged import OTHER, PERSON

if TYPE_CHECKING:
    import torch

CONTROL_NET = "stand-in-control-lora.safetensors"
LORA = "stand-in-lora.safetensors"
STAGED = {PERSON: "woman", OTHER: "man"}
STAGED_METADATA = {
    "format": "staged-identity-words",
    "version": "1",
    "tables": "{}",
    "provenance": "{}",
}
TABLES = {
    "clip_l": "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
    "clip_g": "conditioner.embedders.1.model.token_embedding.weight",
}
STAGES, NOISE = 5, 0.1
UNET = "model.diffusion_model."
HINT_WIDTHS = (3, 16, 16, 32, 32, 96, 96, 256)  # of the convolutions that read the picture
RANK = 4
LORA_GAIN, CONTROL_GAIN = 0.05, 0.01
Shapes = Mapping[str, tuple[int, ...]]


def stand_ins(checkpoint: Path) -> dict[str, list[Path]]:
    """What workflows name beside a checkpoint, by the folders under `models/`."""
    shapes = _unet_shapes(checkpoint)

    def write(folder: Path) -> None:
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(0)
        save_file(_lora(shapes), folder / LORA)
        save_file(_control_lora(shapes), folder / CONTROL_NET)
        for file, word in STAGED.items():
            save_file(_stage(checkpoint, word), folder / file, STAGED_METADATA)

    name = f"stand-ins-{fingerprint(Path(__file__), repr(sorted(shapes.items())))}"
    folder = build(name, "LoRA, ControlNet, people: writing stand-ins", write)
    return {
        "loras": [folder / LORA],
        "controlnet": [folder / CONTROL_NET],
        "infinite_id_staged": [folder / file for file in STAGED],
    }


def _stage(checkpoint: Path, word: str) -> dict[str, torch.Tensor]:
    """Staged words that are nearly a word of the miniature."""
    import torch
    from safetensors import safe_open

    from ..miniature.tokenizer import load_vocabulary

    tensors = {}
    with safe_open(checkpoint, "pt") as file:
        for key, table in TABLES.items():
            row = file.get_tensor(table)[load_vocabulary().index(word)].float()
            for side in ("key", "value"):
                noise = torch.randn(STAGES, 1, len(row)) * row.std()
                tensors[f"{key}.{side}"] = row + NOISE * noise
    return tensors


def _unet_shapes(checkpoint: Path) -> Shapes:
    from safetensors import safe_open

    with safe_open(checkpoint, "pt") as tensors:
        names = [name for name in tensors.keys() if name.startswith(UNET)]  # noqa: SIM118
        return {
            name.removeprefix(UNET): tuple(tensors.get_slice(name).get_shape()) for name in names
        }


def _lora(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Low-rank changes of the text's keys and values."""
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            layer = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            tensors[f"{layer}.lora_down.weight"] = _random(RANK, shape[1])
            tensors[f"{layer}.lora_up.weight"] = LORA_GAIN * _random(shape[0], RANK)
    return tensors


def _control_lora(shapes: Shapes) -> dict[str, torch.Tensor]:
    """What a control LoRA adds to the model: the picture's way in, and the ways out."""
    import torch

    tensors = {"lora_controlnet": torch.zeros(0)}
    widths = _block_widths(shapes)
    reading = (*HINT_WIDTHS, widths[0])
    for index, (inputs, outputs) in enumerate(pairwise(reading)):
        tensors |= _convolution(f"input_hint_block.{2 * index}", inputs, outputs, side=3)
    for index, width in enumerate(widths):
        tensors |= _convolution(f"zero_convs.{index}.0", width, width, gain=CONTROL_GAIN)
    return tensors | _convolution("middle_block_out.0", widths[-1], widths[-1], gain=CONTROL_GAIN)


def _block_widths(shapes: Shapes) -> list[int]:
    """The output channels of the UNet's input blocks: a convolution, a ResNet or a halving one."""
    ends = ("0.weight", "0.out_layers.3.weight", "0.op.weight")
    blocks = sorted({int(name.split(".")[1]) for name in shapes if name.startswith("input_blocks")})
    return [
        next(shape[0] for end in ends if (shape := shapes.get(f"input_blocks.{block}.{end}")))
        for block in blocks
    ]


def _convolution(
    name: str, inputs: int, outputs: int, side: int = 1, gain: float = 1.0
) -> dict[str, torch.Tensor]:
    weight = gain * _random(outputs, inputs, side, side)
    return {f"{name}.weight": weight, f"{name}.bias": 0 * weight[:, 0, 0, 0]}


def _random(*shape: int) -> torch.Tensor:
    """Outputs are as large as inputs."""
    import torch

    return torch.randn(shape) / math.sqrt(math.prod(shape[1:]))

"""Makes adapter files like the published ones, but with the layer widths of a given UNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from . import adapter_files
from .adapter_files import LAYERS, POOLED, Shapes, Tensors

RANK = 4


def list_attentions(unet: Any) -> list[tuple[str, Any]]:
    """List all 140 attentions with their names in the UNet, in the order of FaceID files."""
    names: dict[nn.Module, str] = {module: name for name, module in unet.named_modules()}
    transformers = [find_transformer(unet, block) for block, _ in LAYERS]
    return [(names[a], a) for t in transformers for a in (t.attn1, t.attn2)]


def find_transformer(unet: Any, block: str) -> Any:
    stage, number, index = block.split("_")
    blocks = {"input": unet.input_blocks, "output": unet.output_blocks}
    place = unet.middle_block if stage == "middle" else blocks[stage][int(number)]
    return place[1].transformer_blocks[int(index)]


def make_file(unet: Any, kind: str, token_width: int, clip_width: int) -> Tensors:
    """Make a file for a UNet with SDXL's 70 layers, of random weights; FaceID's has a LoRA."""
    shapes = shape_projection(kind, token_width, clip_width)
    for number, (_, attention) in enumerate(list_attentions(unet)):
        if number % 2:
            for x in "kv":
                size = (attention.to_q.out_features, token_width)
                shapes[f"ip_adapter.{number}.to_{x}_ip.weight"] = size
        if kind in ("FaceID", "FaceID PlusV2"):
            shapes |= shape_lora(number, attention)
    return adapter_files.draw(shapes, seed=5, dtype=torch.float32)


def shape_projection(kind: str, token_width: int, clip_width: int) -> Shapes:
    """Return the shapes of the published `image_proj`, with another width of CLIP states."""
    shapes = adapter_files.shape_projection(kind, token_width)
    reader = "perceiver_resampler.proj_in.weight" if kind == "FaceID PlusV2" else "proj_in.weight"
    if kind in POOLED:
        reader = "proj.weight"
    if kind in POOLED or kind == "FaceID PlusV2" or kind.startswith("Plus"):
        shapes[reader] = (shapes[reader][0], clip_width)
    return {f"image_proj.{name}": size for name, size in shapes.items()}


def shape_lora(number: int, attention: Any) -> Shapes:
    shapes: Shapes = {}
    linears = {"q": attention.to_q, "k": attention.to_k, "v": attention.to_v}
    for x, linear in {**linears, "out": attention.to_out[0]}.items():
        name = f"ip_adapter.{number}.to_{x}_lora"
        shapes[f"{name}.down.weight"] = (RANK, linear.in_features)
        shapes[f"{name}.up.weight"] = (linear.out_features, RANK)
    return shapes

"""Makes adapter files with random weights, and the names, shapes and layouts of published ones.

Nothing here is taken from the pack: the tables restate the published formats, so that the pack's
own tables are tested against them. A width of tokens other than SDXL's 2048 keeps files small.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
Tensors = dict[str, Tensor]

TOKEN_WIDTH = 2048
CONTEXT_WIDTH = 2048  # read by SDXL's K, V for text, for all widths of the adapter's tokens
HEAD_WIDTH = 64
LORA_RANK = 128

FILES = {
    "FaceID": "ip-adapter-faceid_sdxl.bin",
    "FaceID PlusV2": "ip-adapter-faceid-plusv2_sdxl.bin",
    "FaceID Portrait": "ip-adapter-faceid-portrait_sdxl.bin",
    "FaceID Portrait unnorm": "ip-adapter-faceid-portrait_sdxl_unnorm.bin",
    "IP-Adapter": "ip-adapter_sdxl.safetensors",
    "IP-Adapter ViT-H": "ip-adapter_sdxl_vit-h.safetensors",
    "Plus": "ip-adapter-plus_sdxl_vit-h.safetensors",
    "Plus Composition": "ip_plus_composition_sdxl.safetensors",
    "Plus Face": "ip-adapter-plus-face_sdxl_vit-h.safetensors",
    "InstantID": "ip-adapter.bin",
}
"""The kinds of adapters, and the names that they are published under."""
NAMES = {
    kind: kind if kind == "InstantID" else f"IP-Adapter {kind}"
    for kind in FILES
    if not kind.startswith("IP-Adapter")
} | {"IP-Adapter": "IP-Adapter", "IP-Adapter ViT-H": "IP-Adapter"}
"""The pack's names of the kinds."""
TOKENS = dict.fromkeys(FILES, 16) | dict.fromkeys(
    ("FaceID", "FaceID PlusV2", "IP-Adapter", "IP-Adapter ViT-H"), 4
)
POOLED = {"IP-Adapter": 1280, "IP-Adapter ViT-H": 1024}
"""The width of the pooled CLIP embedding, for the kinds that read it."""

# The published numbering, down, up, mid: (stage, number, transformers inside, width) of each block.
PUBLISHED_ORDER = (
    ("input", 4, 2, 640),
    ("input", 5, 2, 640),
    ("input", 7, 10, 1280),
    ("input", 8, 10, 1280),
    ("output", 0, 10, 1280),
    ("output", 1, 10, 1280),
    ("output", 2, 10, 1280),
    ("output", 3, 2, 640),
    ("output", 4, 2, 640),
    ("output", 5, 2, 640),
    ("middle", 0, 10, 1280),
)
LAYERS: tuple[tuple[str, int], ...] = tuple(
    (f"{stage}_{number}_{index}", width)
    for stage, number, depth, width in PUBLISHED_ORDER
    for index in range(depth)
)
"""Block and width of the n-th layer: K', V' are numbered 2n + 1, the self-attentions 2n."""


@dataclass(frozen=True)
class Resampler:
    """The sizes of a perceiver."""

    width: int
    heads: int
    features: int
    out: int
    depth: int = 4
    growth: int = 4  # of the feed-forward layers

    def shapes(self, prefix: str = "") -> Shapes:
        width, inner = self.width, self.heads * HEAD_WIDTH
        found: Shapes = {
            f"{prefix}proj_in.weight": (width, self.features),
            f"{prefix}proj_in.bias": (width,),
            f"{prefix}proj_out.weight": (self.out, width),
            f"{prefix}proj_out.bias": (self.out,),
            f"{prefix}norm_out.weight": (self.out,),
            f"{prefix}norm_out.bias": (self.out,),
        }
        for layer in range(self.depth):
            attention, forward = f"{prefix}layers.{layer}.0.", f"{prefix}layers.{layer}.1."
            found |= {
                f"{attention}norm{n}.{x}": (width,) for n in (1, 2) for x in ("weight", "bias")
            }
            found |= {
                f"{attention}to_q.weight": (inner, width),
                f"{attention}to_kv.weight": (2 * inner, width),
                f"{attention}to_out.weight": (width, inner),
                f"{forward}0.weight": (width,),
                f"{forward}0.bias": (width,),
                f"{forward}1.weight": (self.growth * width, width),
                f"{forward}3.weight": (width, self.growth * width),
            }
        return found


def shape_face_mlp(token_width: int, tokens: int = 4, hidden: int = 1024) -> Shapes:
    """FaceID's projection of a face vector of 512 numbers."""
    return {
        "proj.0.weight": (hidden, 512),
        "proj.0.bias": (hidden,),
        "proj.2.weight": (tokens * token_width, hidden),
        "proj.2.bias": (tokens * token_width,),
        "norm.weight": (token_width,),
        "norm.bias": (token_width,),
    }


def shape_pooled(token_width: int, clip_width: int, tokens: int = 4) -> Shapes:
    """The plain IP-Adapter's projection of a pooled CLIP embedding."""
    return {
        "proj.weight": (tokens * token_width, clip_width),
        "proj.bias": (tokens * token_width,),
        "norm.weight": (token_width,),
        "norm.bias": (token_width,),
    }


def shape_projection(kind: str, token_width: int = TOKEN_WIDTH) -> Shapes:
    """The `image_proj` of a kind: its true shape at the true width, else with fewer heads."""
    full = token_width == TOKEN_WIDTH
    heads = 20 if full else 2
    if kind in POOLED:
        return shape_pooled(token_width, POOLED[kind])
    if kind in ("FaceID", "FaceID Portrait"):
        return shape_face_mlp(token_width, TOKENS[kind])
    if kind == "FaceID PlusV2":
        reader = Resampler(token_width, token_width // HEAD_WIDTH, 1280, token_width)
        return shape_face_mlp(token_width) | reader.shapes("perceiver_resampler.")
    features = 1280 if kind.startswith("Plus") else 512
    width = 1280 if full else 96
    return {"latents": (1, 16, width)} | Resampler(width, heads, features, token_width).shapes()


def shape_key_values(token_width: int = TOKEN_WIDTH) -> Shapes:
    """K', V' of all 70 cross-attentions."""
    return {
        f"{2 * n + 1}.to_{x}_ip.weight": (width, token_width)
        for n, (_, width) in enumerate(LAYERS)
        for x in "kv"
    }


def shape_lora(rank: int = LORA_RANK) -> Shapes:
    """FaceID's LoRA of all 140 attentions: even numbers self-attention, odd ones cross."""
    found: Shapes = {}
    for number in range(2 * len(LAYERS)):
        width = LAYERS[number // 2][1]
        for x in ("q", "k", "v", "out"):
            reads = CONTEXT_WIDTH if number % 2 and x in "kv" else width
            found[f"{number}.to_{x}_lora.down.weight"] = (rank, reads)
            found[f"{number}.to_{x}_lora.up.weight"] = (width, rank)
    return found


def shape(kind: str, token_width: int = TOKEN_WIDTH, lora_rank: int = 0) -> Shapes:
    """The shapes of a whole file, with flat names. Rank 0 means no LoRA."""
    parts = {
        "image_proj": shape_projection(kind, token_width),
        "ip_adapter": shape_key_values(token_width) | (shape_lora(lora_rank) if lora_rank else {}),
    }
    return {f"{part}.{name}": s for part, shapes in parts.items() for name, s in shapes.items()}


def draw(shapes: Mapping[str, tuple[int, ...]], seed: int, dtype: torch.dtype) -> Tensors:
    """Draw random weights that keep the size of signals; norms are around 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    drawn: Tensors = {}
    for name, size in shapes.items():
        x = torch.randn(size, generator=generator)
        is_matrix = len(size) == 2
        x = x / size[1] ** 0.5 if is_matrix else 0.3 * x + (1 if "norm" in name else 0)
        drawn[name] = x.to(dtype)
    return drawn


def make(
    kind: str,
    token_width: int = TOKEN_WIDTH,
    *,
    lora_rank: int = 0,
    seed: int = 0,
    dtype: torch.dtype = torch.float16,
) -> Tensors:
    """Make a file's tensors: `image_proj` is random, every other tensor has one value throughout.

    The layers' weights are `number` for K' and `number + 0.5` for V'; the LoRA's are 1. They take
    no memory: each is a single number, expanded.
    """
    shapes = shape(kind, token_width, lora_rank)
    drawn = draw({n: s for n, s in shapes.items() if n.startswith("image_proj.")}, seed, dtype)
    return drawn | {
        name: torch.tensor(_mark(name), dtype=dtype).expand(size)
        for name, size in shapes.items()
        if name not in drawn
    }


def _mark(name: str) -> float:
    if "_lora." in name:
        return 1.0
    return int(name.split(".")[1]) + (0.5 if "to_v_ip" in name else 0.0)


def nest(tensors: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Flat names -> `{"image_proj": {...}, "ip_adapter": {...}}`, the layout of `.bin` files."""
    nested: dict[str, dict[str, object]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        nested.setdefault(part, {})[rest] = tensor
    return nested


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> Path:
    save_file({name: x.contiguous() for name, x in tensors.items()}, path, metadata)
    return path


def write_bin(path: Path, tensors: Mapping[str, Tensor], *, legacy: bool = False) -> Path:
    """Write a PyTorch file, each tensor with a storage of its own."""
    content = nest({name: x.contiguous() for name, x in tensors.items()})
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def write_raw_safetensors(
    path: Path,
    entries: Iterable[tuple[str, str, list[int], tuple[int, int]]],
    size: int,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a header as given, true or not, and `size` bytes of zeros that take no disk space.

    Args:
        entries: name, dtype, shape and the span of bytes of each tensor.
    """
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    for name, dtype, dims, span in entries:
        header[name] = {"dtype": dtype, "shape": dims, "data_offsets": list(span)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)
    return path


def write_sparse_safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """Write a whole file of fp16 zeros of any size, without delay."""
    entries, end = [], 0
    for name, size in shapes.items():
        begin, end = end, end + 2 * torch.Size(size).numel()
        entries.append((name, "F16", list(size), (begin, end)))
    return write_raw_safetensors(path, entries, end)


def write_sparse_bin(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """Write the same as a PyTorch file: storages have their place, but nothing is written there."""
    tensors = {name: torch.empty(size, dtype=torch.float16) for name, size in shapes.items()}
    with torch.serialization.skip_data():
        torch.save(nest(tensors), path)
    return path

"""`export`: a run's averaged weights as a native adapter file, with where they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..adapters.adapter import Adapter, AdapterConfig
from ..adapters.formats import save
from ..adapters.mappers import MapperConfig
from ..attention.blocks import Block
from ..errors import UserError
from ..files import write_text
from .checkpoints import BEST, FOLDER, Checkpoint, list_checkpoints, load

_SHAPE = ("mapper", "layers", "lowest")
"""Keys of a checkpoint's metadata that do not say what it was made of and with."""


def export(run: Path, out: Path, newest: bool = False, dtype: torch.dtype = torch.float16) -> int:
    """Write an adapter, and a model card beside it. Return the step of its weights.

    Args:
        run: a folder that `train` has written.
        out: a .safetensors file.
        newest: take the newest checkpoint, not the one of the lowest validation loss.

    Raises:
        UserError: if there is no checkpoint, or the file cannot be written.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: the name must end in .safetensors.")
    checkpoint = load(_choose(run, newest))
    adapter = make_averaged(checkpoint)
    origin = describe(checkpoint)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        save(adapter, out, dtype, {"provenance": json.dumps(origin, sort_keys=True)})
    except OSError as error:
        raise UserError(str(error)) from error
    write_text(out.with_suffix(".md"), make_card(out.stem, origin))
    return checkpoint.step


def make_averaged(checkpoint: Checkpoint) -> Adapter:
    """The adapter with the averaged weights, float32 on the CPU."""
    config = AdapterConfig(
        MapperConfig(**checkpoint.metadata["mapper"]),
        {Block.parse(block): width for block, width in checkpoint.metadata["layers"].items()},
    )
    with torch.device("meta"):
        adapter = Adapter(config)
    adapter.load_state_dict(checkpoint.under("average"), assign=True)
    return adapter.requires_grad_(False)


def _choose(run: Path, newest: bool) -> Path:
    best, rolling = run / FOLDER / BEST, list_checkpoints(run)
    if best.exists() and not newest:
        return best
    if not rolling:
        raise UserError(f"{run} has no checkpoint: it is no folder that `train` has written.")
    return rolling[-1]


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the weights were made of and with: hashes, settings, step, validation loss."""
    own = {name: x for name, x in checkpoint.metadata.items() if name not in _SHAPE}
    lowest = checkpoint.metadata["lowest"]
    return own | {"validation_loss": lowest if lowest < float("inf") else None}


def make_card(name: str, origin: Mapping[str, Any]) -> str:
    """A model card, Markdown with the head that model hubs read."""
    rows = "\n".join(f"| {key} | {json.dumps(origin[key])} |" for key in sorted(origin))
    return f"""---
tags: [infinite-id, sdxl, comfyui, adapter]
---
# {name}

An Infinite-ID adapter for SDXL, by identity-enhanced training (arXiv 2403.11781). ComfyUI: put the
file into `models/infinite_id` and choose it in *Load Infinite-ID Model*. Pictures need the face
model and the CLIP image encoder that it was trained with.

| | |
|---|---|
{rows}

**Before you share it**: say whose photos it was trained on and that they consented, and which
licences the face model and the checkpoint have. InsightFace's own packs are for non-commercial
research only, and so are weights that were trained with them.
"""

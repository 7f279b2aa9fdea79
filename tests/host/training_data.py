"""Prepared data that no photo was needed for: random features of a few people, in two buckets."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pack.infinite_id.files import to_json_lines, write_tensors, write_text
from pack.infinite_id.host.models import autoencoder_digest
from pack.infinite_id.training import data

PEOPLE, PHOTOS, SIZE = 6, 4, 128
BUCKETS = ((128, 128), (64, 192))
FACE_WIDTH, CLIP_TOKENS, CLIP_WIDTH = 16, 5, 24


def write_data(folder: Path, checkpoint: Path) -> Path:
    """A folder as `prepare` makes one: `PEOPLE` people with `PHOTOS` photos each."""
    random = torch.Generator().manual_seed(5)
    count = PEOPLE * PHOTOS
    tensors = {
        "face": torch.randn(count, FACE_WIDTH, generator=random),
        "clip": torch.randn(count, CLIP_TOKENS, CLIP_WIDTH, generator=random).half(),
    }
    rows = dict.fromkeys(BUCKETS, 0)
    lines = []
    for n in range(count):
        bucket = BUCKETS[n % 3 == 0]
        line = {
            "person": f"person {n // PHOTOS}",
            "name": f"{n // PHOTOS}/{n % PHOTOS}.png",
            "height": 100 + n,
            "width": 120,
            "shard": "000000.safetensors",
            "row": n,
            "latents": {str(SIZE): {"bucket": bucket, "row": rows[bucket], "crop": [n, 2]}},
        }
        rows[bucket] += 1
        lines.append(line)
    for (height, width), rows_there in rows.items():
        shape = rows_there, 4, height // 8, width // 8
        own = torch.randn(shape, generator=random).half()
        tensors[f"latents.{SIZE}.{height}x{width}"] = own
        tensors[f"mirrored.{SIZE}.{height}x{width}"] = own.flip(-1)
    write_tensors(folder / "shards" / "000000.safetensors", tensors, {})
    nothing = torch.randn(1, CLIP_TOKENS, CLIP_WIDTH, generator=random)
    write_tensors(folder / data.NOTHING, {"clip": nothing}, {})
    digest = {"name": checkpoint.name, "digest": autoencoder_digest(checkpoint)}
    settings = {"sizes": {"sizes": [SIZE]}, "models": {"autoencoder": digest}}
    write_text(folder / data.SETTINGS, json.dumps(settings))
    write_text(folder / data.INDEX, to_json_lines(lines))
    return folder

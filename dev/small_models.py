"""Small models for the tests that take photos of real faces. Runs inside the environment.

They have SDXL's structure, all 70 layers of it, and random weights: pictures are noise-like.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cache import ROOT, build, fingerprint
from .comfyui import host_folder
from .face_pack import NAME as FACE_PACK
from .face_pack import face_root

CHECKPOINT = "miniature-deep.safetensors"
CLIP_VISION = "miniature-clip-vision.safetensors"
ADAPTER = "miniature-adapter.safetensors"


@dataclass(frozen=True)
class SmallModels:
    """What a server needs, and what the widgets of a workflow must then say."""

    models: dict[str, list[Path]]
    custom_nodes: list[Path]
    values: dict[str, Any]


def small_models() -> SmallModels:
    """The small models, written into the cache where they are missing."""
    sources = sorted(p for p in (ROOT / "miniature").glob("*.*") if p.suffix in (".py", ".json"))
    folder = build(
        f"small-models-{fingerprint(Path(__file__), *sources)}", "Small models: writing", _write
    )
    return SmallModels(
        models={
            "checkpoints": [folder / CHECKPOINT],
            "clip_vision": [folder / CLIP_VISION],
            "infinite_id": [folder / ADAPTER],
            "insightface": [face_root() / "models"],
        },
        custom_nodes=[ROOT / "miniature"],
        values={
            "ckpt_name": CHECKPOINT,
            "clip_name": CLIP_VISION,
            "model_name": ADAPTER,
            "preset": "Infinite-ID",
            "face_pack": FACE_PACK,
            "pack": FACE_PACK,
            "InfiniteIDFaceLoRA.strength": 0.0,  # the adapter has none
            "EmptyLatentImage.width": 128,
            "EmptyLatentImage.height": 128,
            "InfiniteIDCropFaces.size": 128,
            "steps": 4,
        },
    )


def _write(folder: Path) -> None:
    """In a process of its own: the host looks at its command line when it is imported."""
    command = [sys.executable, "-m", "pack.dev.small_models", str(host_folder()), str(folder)]
    subprocess.run(command, check=True, cwd=ROOT)


def main(host: Path, folder: Path) -> None:
    """Write checkpoint, CLIP vision model and adapter into a folder."""
    import torch

    from ..infinite_id import launch
    from ..infinite_id.adapters.adapter import Adapter, AdapterConfig
    from ..infinite_id.adapters.formats import save
    from ..infinite_id.adapters.mappers import MapperConfig
    from ..infinite_id.attention.blocks import list_layers
    from ..miniature import random_weights
    from ..miniature.shapes import CONTEXT_WIDTH, clip_vision_config

    launch.use_host(launch.HostOptions(host, cpu=True))
    from ..miniature import nets

    random_weights.write(folder, "deep")
    torch.manual_seed(0)
    mapper = MapperConfig(clip_width=clip_vision_config()["hidden_size"], token_width=CONTEXT_WIDTH)
    adapter = Adapter(AdapterConfig(mapper, list_layers(nets.unet("deep"))))
    save(adapter, folder / ADAPTER)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Stages `photos`, `prepared`, `adapter`, `adapter_with_text`: Infinite-ID, by the pack's trainer.

`photos` stores drawn photos as a user would store photos: in WebDataset shards, with captions.
`prepared` and the others run the commands of `python -m infinite_id.training` on them. `adapter` is
the paper's identity-enhanced training: another photo of the person is the input, without text.
`adapter_with_text` is the paper's comparison: the same weights, learnt beside the text's attention.
As in the paper, all are of the photo style: other styles are left to the text.
"""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path

import cv2
import folder_paths

from ...infinite_id.training import command
from ..host import register
from ..nets import has_fast_bfloat16
from ..world.canvas import SIDE
from ..world.scene import draw_scene
from . import clip_vision, workers
from .export import PACK
from .pictures import captions, chunk_paths, load, numbers_in
from .unet import CHECKPOINT
from .workers import StoppedError

CHUNKS = 24
BATCH = 64
SETTINGS = Path(__file__).with_name("adapter.toml")
THRESHOLDS = ("--min-face", 32, "--min-sharpness", 0, "--min-likeness", -1)
"""Every drawn face is sharp, and nobody is in another's folder."""


def write_photos(folder: Path, _: int) -> None:
    """Writes a shard for each of the first chunks of pictures."""
    everything = load(folder / "pictures")
    texts = captions(everything)
    (folder / "photos").mkdir(exist_ok=True)
    for chunk in workers.share(chunk_paths(folder / "pictures")[:CHUNKS]):
        path = folder / "photos" / f"{chunk.stem}.tar"
        if path.exists():
            continue
        partial = folder / f"{chunk.stem}.tar.partial"
        with tarfile.open(partial, "w") as shard:
            for n in numbers_in(chunk):
                if draw_scene(int(everything.scenes[n])).style == "photo":
                    told = {"person": f"{everything.people[n]:06d}", "caption": texts[n]}
                    pixels = cv2.cvtColor(everything.pixels[n], cv2.COLOR_RGB2BGR)
                    _add(shard, f"{n:06d}.png", cv2.imencode(".png", pixels)[1].tobytes())
                    _add(shard, f"{n:06d}.json", json.dumps(told).encode())
        partial.rename(path)


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, BytesIO(content))


def prepare(folder: Path, _: int) -> None:
    """Runs `prepare` on the photos."""
    if workers.number() == 0:
        _run(
            *("prepare", folder / "photos", "--out", folder / "prepared"),
            *("--model", folder / CHECKPOINT, "--face-pack", folder / PACK),
            *("--clip-vision", folder / clip_vision.FILE, "--sizes", SIDE, *THRESHOLDS),
        )


def train(folder: Path, samples: int) -> None:
    """Runs `train` and `export`."""
    _train(folder, "adapter", samples)


def train_with_text(folder: Path, samples: int) -> None:
    """Likewise, for the comparison."""
    _train(folder, "adapter_with_text", samples, "objective.text=true")


def _train(folder: Path, name: str, samples: int, *changes: str) -> None:
    steps = -(-samples // BATCH)
    precision = "bf16" if has_fast_bfloat16() else "fp32"
    is_first = workers.number() == 0  # of those who part after the training
    own = (f"run.steps={steps}", f"run.batch={BATCH}", f"run.precision={precision}", *changes)
    _run(
        *("train", folder / "prepared", "--model", folder / CHECKPOINT, "--out", folder / name),
        *("--settings", SETTINGS, *(word for change in own for word in ("--set", change))),
    )
    if is_first:
        command.main(
            ["export", str(folder / name), "--out", str(folder / f"miniature-{name}.safetensors")]
        )


def _run(*arguments: object) -> None:
    """Run the trainer's command in this process, one of several, as `accelerate launch` would.

    Raises:
        StoppedError: if it was asked to stop.
        SystemExit: if it fails; it has said why.
    """
    register()
    device = () if workers.device().type == "cuda" else ("--cpu",)
    words = (*arguments, "--host", folder_paths.base_path, *device)
    code = command.main([str(word) for word in words])
    if code == 3:
        raise StoppedError
    if code:
        raise SystemExit(code)

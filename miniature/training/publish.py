"""Stage `publish`: writes the weights as the files that users of the miniature load."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import clip_vision, judge, workers
from .export import PACK
from .unet import CHECKPOINT, replace_autoencoder

NAME = "infinite-id-miniature"
OWN, WITH_TEXT = "identity-enhanced", "with text"
ADAPTERS = {
    OWN: f"{NAME}-adapter.safetensors",
    WITH_TEXT: f"{NAME}-adapter-with-text.safetensors",
}
FILES = {
    CHECKPOINT: f"{NAME}.safetensors",
    clip_vision.FILE: f"{NAME}-clip-vision.safetensors",
    "miniature-adapter.safetensors": ADAPTERS[OWN],
    "miniature-adapter_with_text.safetensors": ADAPTERS[WITH_TEXT],
    judge.FILE: judge.FILE,
    f"{PACK}/detector.onnx": f"insightface/{PACK}/detector.onnx",
    f"{PACK}/recogniser.onnx": f"insightface/{PACK}/recogniser.onnx",
}


def publish(folder: Path, to: Path) -> None:
    if workers.number() > 0:
        return
    judge.export(folder)
    replace_autoencoder(folder)
    for source, target in FILES.items():
        path = to / target
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        shutil.copyfile(folder / source, partial)
        partial.replace(path)

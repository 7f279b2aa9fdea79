"""Trains one of the miniature's nets for some minutes, on from where it was.

`python -m miniature.train --host PATH --work DIR --stage unet --minutes 30`

Stages, in this order: pictures, vae, encoder, decoder, latents, unet. Recogniser, detector and
clip_vision need only the pictures; face_pack exports the first two. features, adapter and
adapter_with_text come last and need all of them. Sheets and logs lie beside the
checkpoints in the work folder. A stage that is stopped loses two minutes at most.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib import import_module
from pathlib import Path

from .random_weights import use_host
from .training import workers

# Stage -> module and function in `training`, each called with the work folder and the minutes.
STAGES = {
    "pictures": ("pictures", "make"),
    "vae": ("vae", "train_vae"),
    "encoder": ("vae", "freeze_encoder"),
    "decoder": ("vae", "train_decoder"),
    "latents": ("unet", "encode_pictures"),
    "unet": ("unet", "train"),
    "recogniser": ("recogniser", "train"),
    "detector": ("detector", "train"),
    "face_pack": ("export", "write_pack"),
    "clip_vision": ("clip_vision", "train"),
    "features": ("adapter", "extract"),
    "adapter": ("adapter", "train"),
    "adapter_with_text": ("adapter", "train_with_text"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the miniature's nets, stage by stage.")
    parser.add_argument("--host", type=Path, required=True, help="ComfyUI's folder")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints, pictures, logs")
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=2, help="processes, each of one thread")
    options = parser.parse_args()
    stage = partial(_train, options.host, options.stage, options.work, options.minutes)
    workers.run(options.workers, stage)


def _train(host: Path, stage: str, folder: Path, minutes: float) -> None:
    use_host(host)
    from comfy.cli_args import args

    args.use_pytorch_cross_attention = True  # the host's choice for a CPU is slow
    module, function = STAGES[stage]
    getattr(import_module(f".training.{module}", __package__), function)(folder, minutes)


if __name__ == "__main__":
    main()

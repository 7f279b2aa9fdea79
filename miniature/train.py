"""Makes the miniature from seeds, or trains one of its nets on from where it was.

`python -m miniature.train --host PATH --work DIR` takes all stages in their order, for the minutes
that the published weights had. `--stage unet --minutes 30` takes one; with `--stage unpack` before
it, it goes on from the published weights. Sheets and logs lie beside the checkpoints in the work
folder. A stage that is stopped loses two minutes at most, and one that has had its minutes already
is passed over.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from .random_weights import use_host
from .shapes import WEIGHTS
from .training import workers


class Stage(NamedTuple):
    """A function of a module in `training`, called with the work folder and the minutes.

    Where pictures are drawn it is the number of chunks instead, for `unpack` and `publish` the
    folder of the published weights.
    """

    module: str
    function: str
    minutes: float = 0.0


STAGES = {
    "pictures": Stage("pictures", "make"),
    "vae": Stage("vae", "train_vae", 38),
    "encoder": Stage("vae", "freeze_encoder"),
    "latents": Stage("unet", "encode_pictures"),
    "recogniser": Stage("recogniser", "train", 7),
    "detector": Stage("detector", "train", 5),
    "clip_vision": Stage("clip_vision", "train", 9),
    "unet": Stage("unet", "train", 60),
    "features": Stage("adapter", "extract"),
    "adapter": Stage("adapter", "train", 26),
    "adapter_with_text": Stage("adapter", "train_with_text", 26),
    "decoder": Stage("vae", "train_decoder", 10),
    "judge_pictures": Stage("judge", "draw_pictures"),
    "attributes": Stage("judge", "train_attributes", 8),
    "likeness": Stage("judge", "train_likeness", 7),
    "publish": Stage("publish", "publish"),
}
OTHERS = {"unpack": Stage("unpack", "unpack")}  # not a part of making it from seeds


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the miniature from seeds.")
    parser.add_argument("--host", type=Path, required=True, help="ComfyUI's folder")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints, pictures, logs")
    parser.add_argument("--stage", choices=[*STAGES, *OTHERS], help="only this one")
    parser.add_argument("--minutes", type=float, help="for each stage, instead of its own")
    parser.add_argument("--workers", type=int, default=2, help="processes, each of one thread")
    parser.add_argument("--chunks", type=int, default=32, help="of 1024 pictures each")
    parser.add_argument("--to", type=Path, default=WEIGHTS, help="where the published weights are")
    options = parser.parse_args()
    for name in [options.stage] if options.stage else STAGES:
        own = (STAGES | OTHERS)[name].minutes
        minutes = own if options.minutes is None else options.minutes
        print(f"--- {name}", flush=True)
        instead = dict.fromkeys(("pictures", "judge_pictures"), options.chunks)
        given = (instead | dict.fromkeys(("unpack", "publish"), options.to)).get(name, minutes)
        workers.run(options.workers, partial(_run, options.host, name, options.work, given))


def _run(host: Path, name: str, folder: Path, given: float | Path) -> None:
    use_host(host)
    from comfy.cli_args import args

    args.use_pytorch_cross_attention = True  # the host's choice for a CPU is slow
    stage = (STAGES | OTHERS)[name]
    module = import_module(f".training.{stage.module}", __package__)
    getattr(module, stage.function)(folder, given)


if __name__ == "__main__":
    main()

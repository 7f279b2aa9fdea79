"""Makes the miniature from seeds, or continues the training of one of its nets.

`python -m miniature.train` takes all stages in their order, with as many samples as the
published weights had. `--stage unet --samples 300000` takes one; with `--stage unpack` before it,
it goes on from the published weights. It uses a GPU if there is one. Sheets lie in the work folder,
checkpoints and `stats.jsonl` in a folder for each net. SIGINT and SIGTERM save and leave; a stage
that has had all its samples is skipped. `--stage keep --to FOLDER` stores what was learnt so far,
and `--stage unpack --to FOLDER` goes on from that on another machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from ...infinite_id import launch
from ..shapes import WEIGHTS

PICTURES = 32_768
WORK = Path.home() / ".cache" / "infinite-id" / "miniature-2" / "work"


class Stage(NamedTuple):
    """A function of a module in this folder, called with the work folder and the samples' number.

    A stage that draws pictures gets the number of pictures instead; `unpack`, `keep` and
    `publish` get the folder of weights. `ends`: the processes part at its end.
    """

    module: str
    function: str
    samples: int = 0
    ends: bool = False


STAGES = {
    "pictures": Stage("pictures", "make"),
    "vae": Stage("vae", "train_vae", 100_000),
    "encoder": Stage("vae", "freeze_encoder"),
    "latents": Stage("unet", "encode_pictures"),
    "recogniser": Stage("recogniser", "train", 150_000),
    "detector": Stage("detector", "train", 100_000),
    "clip_vision": Stage("clip_vision", "train", 110_000),
    "unet": Stage("unet", "train", 1_000_000),
    "photos": Stage("adapter", "write_photos"),
    "prepared": Stage("adapter", "prepare"),
    "adapter": Stage("adapter", "train", 150_000, ends=True),
    "adapter_with_text": Stage("adapter", "train_with_text", 150_000, ends=True),
    "decoder": Stage("vae", "train_decoder", 40_000),
    "judge_pictures": Stage("judge", "draw_pictures"),
    "attributes": Stage("judge", "train_attributes", 120_000),
    "likeness": Stage("judge", "train_likeness", 150_000),
    "publish": Stage("publish", "publish"),
}
OTHERS = {  # these are no part of making the miniature from seeds
    "unpack": Stage("unpack", "unpack"),
    "keep": Stage("unpack", "keep"),
}


def main() -> int:
    """Run the stages; 0: done, 3: stopped by a signal, and saved."""
    parser = argparse.ArgumentParser(
        prog="python -m miniature.train", description="Makes the miniature from seeds."
    )
    launch.add_host(parser)
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints, pictures, logs")
    parser.add_argument("--stage", nargs="+", choices=[*STAGES, *OTHERS], help="only these")
    parser.add_argument("--samples", type=int, help="for each stage, instead of its own")
    parser.add_argument("--workers", type=int, default=2, help="processes, each of one thread")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="to draw for training")
    parser.add_argument("--to", type=Path, default=WEIGHTS, help="where weights are")
    options = parser.parse_args()
    from . import workers

    given: dict[str, int | Path] = {}
    for name in options.stage or STAGES:
        own = (STAGES | OTHERS)[name].samples
        given[name] = own if options.samples is None else options.samples
    instead = dict.fromkeys(("pictures", "judge_pictures"), options.pictures)
    instead |= dict.fromkeys(("unpack", "keep", "publish"), options.to)
    given |= {name: value for name, value in instead.items() if name in given}
    for part in _split(given):
        if not workers.run(options.workers, partial(_run, options.host, options.work, part)):
            return 3
    return 0


def _split(given: dict[str, int | Path]) -> Iterator[dict[str, int | Path]]:
    """Yield stages that can follow each other in the same processes."""
    part: dict[str, int | Path] = {}
    for name, value in given.items():
        part[name] = value
        if (STAGES | OTHERS)[name].ends:
            yield part
            part = {}
    if part:
        yield part


def _run(host: Path | None, folder: Path, given: dict[str, int | Path]) -> None:
    from . import workers

    launch.use_host(launch.HostOptions(host, cpu=workers.device().type == "cpu"))
    for name, value in given.items():
        if workers.number() == 0:
            print(f"--- {name}", flush=True)
        stage = (STAGES | OTHERS)[name]
        module = import_module(f".{stage.module}", __package__)
        getattr(module, stage.function)(folder, value)
        if not stage.ends:
            workers.wait()

"""Shared by the commands that learn words: their options, and how a verb is run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import launch
from ..options import add_face_net_options

_PLAN = """Says what memory learning takes for SDXL, SD 1.5 and SD 2.1, and which card that fits
on: counted at true size, on tensors without storage. Takes some minutes."""


def run_verb(options: argparse.Namespace, load: Callable[[], Any]) -> int:
    """Run the verb that was chosen, and return its exit code.

    Args:
        load: returns the module with the verbs, once ComfyUI can be imported.
    """

    def run(options: argparse.Namespace) -> int:
        launch.use_host(launch.read_options(options))
        return int(getattr(load(), options.verb)(options))

    return launch.run(run, options, (ValueError, OSError))


def add_photos(parser: argparse.ArgumentParser, picture: str) -> None:
    """Add photos, models and nets; `picture` is what is cut out of a photo."""
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO", help="of one person")
    parser.add_argument(
        "--model", required=True, help="checkpoint of SDXL, SD 1.5 or SD 2.1: a path or a name"
    )
    parser.add_argument(
        "--face-pack", help="InsightFace model pack that finds faces: a path or a name"
    )
    parser.add_argument(
        "--clip-vision", help="CLIP image encoder that gives face vectors: a path or a name"
    )
    parser.add_argument(
        "--face-mask", type=Path, nargs="+", metavar="PICTURE", help="white faces, for each photo"
    )
    parser.add_argument(
        "--face-parser",
        type=Path,
        metavar="FILE",
        help="ONNX face parser that sees which pixels are face and hair",
    )
    add_face_net_options(parser)
    parser.add_argument(
        "--size",
        type=int,
        default=1024,
        metavar="N",
        help=f"side of the {picture} in pixels; default: 1024, for SDXL; 512 for SD 1.5",
    )


def add_run(parser: argparse.ArgumentParser, steps: int, rate: float) -> None:
    """Add what a run needs, with its default number of steps and learning rate."""
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="FOLDER",
        help="where the state of a run is kept; default: infinite_id_runs in ComfyUI's output",
    )
    parser.add_argument(
        "--steps", type=int, default=steps, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--rate", type=float, default=rate, help="learning rate; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument(
        "--held-out",
        type=Path,
        metavar="PHOTO",
        help="another photo: the words that are most like it are kept",
    )
    parser.add_argument(
        "--no-checkpointing", action="store_true", help="faster, with much more memory"
    )


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add the name of a file, what to do if it is taken, and ComfyUI's options."""
    parser.add_argument(
        "--name", required=True, help="of the file, maybe with folders: people/anna"
    )
    parser.add_argument(
        "--if-taken",
        choices=("stop", "number", "replace"),
        default="stop",
        help="what to do if there is one of this name; default: stop",
    )
    launch.add_options(parser)


def add_plan(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb that says what memory learning takes."""
    plan = verbs.add_parser("plan", help="what memory learning takes", description=_PLAN)
    launch.add_options(plan)

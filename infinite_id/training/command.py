"""The command: `prepare` makes data of photos, `train` weights of data, `export` a file of them."""

# torch and ComfyUI are imported inside the functions: `--help` needs neither.

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import launch
from ..errors import UserError
from .prepare import command as prepare

if TYPE_CHECKING:
    from .settings import Settings

_TRAIN = """Trains an adapter. Give the same command again after an interruption: it goes on from
the newest checkpoint, and ends as if it had not been interrupted. In several processes:
`accelerate launch -m infinite_id.training train ...`."""
_WARM_START = """Begins a run with what fits of another adapter: K', V' of any file that this pack
reads, the face mapper of FaceID's files, all of a native one (so a second stage begins at another
size). Prints what was taken. `train` with the same options goes on from there."""
_PLAN = """Says before a run what it takes, for the paper's set-up, a card of 24 GB and this
machine: memory of each GPU, counted at SDXL's true size on tensors without storage, steps a second,
days, and room for the data. Takes a minute or two."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: 0 done, 1 an error, 3 interrupted and saved."""
    options = _parse(arguments)
    return launch.run(_VERBS[options.verb], options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infinite_id.training",
        description="Trains Infinite-ID adapters for SDXL from photos of people.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    prepare.add_options(
        verbs.add_parser("prepare", help="photos -> data", description=prepare.DESCRIPTION)
    )
    _add_train(verbs.add_parser("train", help="data -> a run", description=_TRAIN))
    _add_warm_start(
        verbs.add_parser(
            "warm-start", help="an adapter file -> a run at step 0", description=_WARM_START
        )
    )
    _add_plan(verbs.add_parser("plan", help="what a run takes, before it", description=_PLAN))
    _add_export(verbs.add_parser("export", help="a run -> an adapter file and its model card"))
    verbs.add_parser(
        "settings", help="print a TOML file with every setting of `train`, to change and to give"
    )
    return parser.parse_args(arguments)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA", help="a folder that prepare has written")
    parser.add_argument("--model", required=True, help="SDXL checkpoint: a path or a name")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="a folder")
    _add_settings(parser)
    launch.add_options(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--settings", type=Path, metavar="TOML", help="see the verb `settings`; default: its values"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        help="one setting, such as run.steps=20000; goes before the file's",
    )


def _add_warm_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="native Infinite-ID, IP-Adapter FaceID, FaceID PlusV2, Plus Face or InstantID",
    )
    _add_train(parser)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--photos", type=int, default=10_000, metavar="N", help="how many; default: 10000"
    )
    parser.add_argument("--size", type=int, default=1024, help="pixels; default: 1024")
    _add_settings(parser)
    launch.add_options(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder that train has written")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .safetensors")
    parser.add_argument(
        "--newest",
        action="store_true",
        help="the newest checkpoint; default: that of the lowest validation loss",
    )


def _train(options: argparse.Namespace) -> int:
    settings = _read_settings(options)
    launch.use_host(launch.read_options(options))
    from .host_train import train

    return 0 if train(options.data, options.model, options.out, settings) else 3


def _warm_start(options: argparse.Namespace) -> int:
    settings = _read_settings(options)
    launch.use_host(launch.read_options(options))
    from .host_train import warm_start

    done = warm_start(options.file, options.data, options.model, options.out, settings)
    print(f"{options.out} begins with {options.file.name}")
    for label, parts in (
        ("taken", done.taken),
        ("fresh", done.fresh),
        ("not used", done.unused),
    ):
        print(f"  {label}: {', '.join(parts) or 'nothing'}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    settings = _read_settings(options)
    if options.size < 64 or options.size % 64:
        raise UserError(f"--size is {options.size}; it must be a multiple of 64.")
    launch.use_host(launch.read_options(options))
    from .host_plan import plan

    print(plan(settings, options.size, options.photos), end="")
    return 0


def _read_settings(options: argparse.Namespace) -> Settings:
    from .settings import read

    return read(options.settings, dict(_split(text) for text in options.set))


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or "." not in name:
        raise UserError(f"--set {text}: expected TABLE.KEY=VALUE, such as run.steps=20000.")
    return name, value


def _export(options: argparse.Namespace) -> int:
    from .export import export

    step = export(options.run, options.out, options.newest)
    print(f"{options.out}: the averaged weights of step {step}")
    return 0


def _print_settings(_: argparse.Namespace) -> int:
    from .settings import example

    print(example(), end="")
    return 0


_VERBS = {
    "prepare": prepare.execute,
    "train": _train,
    "warm-start": _warm_start,
    "plan": _plan,
    "export": _export,
    "settings": _print_settings,
}

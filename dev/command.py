"""The commands of `python -m dev`, and the function that each calls.

The first Python makes an environment in the cache, and the command runs in that one.
"""

# Packages of the environment are imported inside functions: this file runs before it exists.

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import environment
from .cache import ROOT, SetUpError, cache_root
from .comfyui import VERSIONS, host_folder


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        options = _parse(arguments)
        if not environment.is_current(options.command):
            small = options.command == "face-pack"
            python = environment.prepare_for_nets() if small else environment.prepare()
            return environment.rerun(python, arguments)
        return _run(options)
    except SetUpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _interrupt(_signal: int, _frame: object) -> None:
    """End as with Ctrl-C, so that servers and temporary folders go too; ignore further signals."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="fetch ComfyUI, the face nets and the test photos")
    commands.add_parser("demo", help="make a picture with a real ComfyUI")
    commands.add_parser("serve", help="open ComfyUI's page, with templates for the miniature")
    commands.add_parser("test", help="style, types, tests; further arguments go to pytest")
    commands.add_parser("check", help="style, types and the quick unit tests, in a minute")
    workflows = commands.add_parser("workflows", help="draw the files in workflows/ anew")
    workflows.add_argument(
        "--thumbnails",
        nargs="*",
        metavar="WORKFLOW",
        help="run these, or all, on the miniature, for their pictures",
    )
    pictures = commands.add_parser("help_pictures", help="draw the help pages' pictures anew")
    pictures.add_argument("nodes", nargs="*", help="only the pictures of these nodes")
    docs = commands.add_parser("docs", help="build the documentation's site into site/")
    docs.add_argument("--serve", action="store_true", help="show it, anew after each change")
    commands.add_parser("orl", help="calibrate two face nets and write it into docs/metrics.md")
    face_pack = commands.add_parser("face-pack", help="write the MIT-licensed face model pack")
    face_pack.add_argument(
        "--to", type=Path, required=True, help="e.g. ComfyUI/models/insightface/models"
    )
    soak = commands.add_parser("soak", help="many random prompts through one server")
    soak.add_argument("--prompts", type=int, default=300)
    nightly = commands.add_parser("nightly", help="draw pairs of nodes and savings for a time")
    nightly.add_argument("--minutes", type=float, default=60)
    compatibility = commands.add_parser(
        "compatibility", help="test several ComfyUIs and write docs/compatibility.md"
    )
    compatibility.add_argument("--hosts", nargs="+", choices=VERSIONS, default=list(VERSIONS))
    commands.add_parser("bench", help="measure what it costs; `bench --help` lists the options")
    further = list(arguments[1:]) if arguments[:1] in (["test"], ["bench"]) else []
    options = parser.parse_args(arguments[: len(arguments) - len(further)])
    options.further = further
    return options


def _run(options: argparse.Namespace) -> int:
    return _COMMANDS[options.command](options)


def _setup(_options: argparse.Namespace) -> int:
    _fetch()
    print(f"Set up in {cache_root()}; ComfyUI is {host_folder()}")
    return 0


def _fetch() -> None:
    """Fetch what the tests need beside the environment."""
    from .face_pack import face_root
    from .photos import photos

    face_root()
    photos()


def _demo(_options: argparse.Namespace) -> int:
    from .demo import demo

    return demo()


def _serve(_options: argparse.Namespace) -> int:
    from .serve import serve

    return serve()


def _test(options: argparse.Namespace) -> int:
    from .check import QUICK, check

    _fetch()
    return check(QUICK if options.command == "check" else options.further)


def _nightly(options: argparse.Namespace) -> int:
    from .nightly import nightly

    _fetch()
    return nightly(options.minutes)


def _compatibility(options: argparse.Namespace) -> int:
    from .compatibility.run import compatibility

    _fetch()
    return compatibility(options.hosts)


def _bench(options: argparse.Namespace) -> int:
    from ..bench.command import main as bench

    return bench(options.further)


def _soak(options: argparse.Namespace) -> int:
    from ..bench.soak.run import soak

    return soak(options.prompts)


def _workflows(options: argparse.Namespace) -> int:
    from ..gallery.files import write_all

    write_all(options.thumbnails)
    return 0


def _help_pictures(options: argparse.Namespace) -> int:
    from ..gallery.help_pictures import draw_all

    draw_all(options.nodes)
    return 0


def _docs(options: argparse.Namespace) -> int:
    verb = "serve" if options.serve else "build"
    return subprocess.run([sys.executable, "-m", "mkdocs", verb], check=False, cwd=ROOT).returncode


def _orl(_options: argparse.Namespace) -> int:
    from .orl import main as orl

    return orl()


def _face_pack(options: argparse.Namespace) -> int:
    from .face_pack import write_to

    print(write_to(options.to))
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "setup": _setup,
    "demo": _demo,
    "serve": _serve,
    "test": _test,
    "check": _test,
    "nightly": _nightly,
    "compatibility": _compatibility,
    "bench": _bench,
    "soak": _soak,
    "workflows": _workflows,
    "help_pictures": _help_pictures,
    "docs": _docs,
    "orl": _orl,
    "face-pack": _face_pack,
}

"""`python -m dev COMMAND`, with any Python from 3.11 on; `--help` lists the commands.

The first Python makes an environment in the cache, and the command runs in that one.
"""

# What the environment holds is imported inside the functions: this file runs before it exists.

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import environment
from .cache import SetUpError, cache_root
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


def _interrupt(_signal: int, _frame: object) -> None:
    """End as with Ctrl-C, so that servers and temporary folders go too; once is enough."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="fetch ComfyUI, the face nets and the test photos")
    commands.add_parser("demo", help="make a picture with a real ComfyUI")
    commands.add_parser("serve", help="open ComfyUI's page, with templates for the miniature")
    commands.add_parser("test", help="style, types, tests; further arguments go to pytest")
    commands.add_parser("check", help="style, types and the quick unit tests, in a minute")
    workflows = commands.add_parser("workflows", help="draw the files in workflows/ anew")
    workflows.add_argument(
        "--thumbnails", action="store_true", help="run them on the miniature, for their pictures"
    )
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
    if options.command == "face-pack":
        return _write_face_pack(options.to)
    if options.command == "demo":
        from .demo import demo

        return demo()
    if options.command == "serve":
        from .serve import serve

        return serve()
    if options.command == "bench":
        from .bench import bench

        return bench(options.further)
    if options.command == "soak":
        from .soak.run import soak

        return soak(options.prompts)
    _fetch()
    return _run_with_photos(options)


def _run_with_photos(options: argparse.Namespace) -> int:
    if options.command == "workflows":
        from .gallery.files import write_all

        write_all(options.thumbnails)
        return 0
    if options.command == "compatibility":
        from .compatibility.run import compatibility

        return compatibility(options.hosts)
    if options.command == "nightly":
        from .nightly import nightly

        return nightly(options.minutes)
    if options.command in ("test", "check"):
        from .check import QUICK, check

        return check(QUICK if options.command == "check" else options.further)
    print(f"Set up in {cache_root()}; ComfyUI is {host_folder()}")
    return 0


def _write_face_pack(folder: Path) -> int:
    from .face_pack import write_to

    print(write_to(folder))
    return 0


def _fetch() -> None:
    """What the tests need beyond the environment."""
    from .face_pack import face_root
    from .photos import photos

    face_root()
    photos()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

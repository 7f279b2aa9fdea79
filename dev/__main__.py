"""`python -m dev setup|demo|test|workflows|face-pack`, with any Python from 3.11 on.

The first Python makes an environment in the cache, and the command runs in that one.
"""

# What the environment holds is imported inside the functions: this file runs before it exists.

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import environment
from .cache import SetUpError, cache_root
from .comfyui import host_folder


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
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


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="fetch ComfyUI, the face nets and the test photos")
    commands.add_parser("demo", help="make a picture with a real ComfyUI")
    commands.add_parser("test", help="style, types, tests; further arguments go to pytest")
    commands.add_parser("workflows", help="draw the files in workflows/ anew")
    face_pack = commands.add_parser("face-pack", help="write the MIT-licensed face model pack")
    face_pack.add_argument(
        "--to", type=Path, required=True, help="e.g. ComfyUI/models/insightface/models"
    )
    for_pytest = list(arguments[1:]) if arguments[:1] == ["test"] else []
    options = parser.parse_args(arguments[: len(arguments) - len(for_pytest)])
    options.for_pytest = for_pytest
    return options


def _run(options: argparse.Namespace) -> int:
    if options.command == "face-pack":
        return _write_face_pack(options.to)
    if options.command == "demo":
        from .demo import demo

        return demo()
    _fetch()
    if options.command == "workflows":
        from .gallery import draw_all

        draw_all()
        return 0
    if options.command == "test":
        from .check import check

        return check(options.for_pytest)
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

"""The command: `learn` turns photos into staged words, `export` those into an embedding.

It does the same as the nodes. An interrupted run goes on with the same command.
"""

# torch and ComfyUI are imported inside the functions: `--help` needs neither.

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..words.options import add_photos, add_place, add_plan, add_run, run_verb

_LEARN = """Learns words for the person in the photos, for each stage of the noise levels, and
writes them into models/infinite_id_staged, for Staged Identity Prompt. Give the same command again
after an interruption: it goes on."""
_EXPORT = """Writes the mean of all stages into ComfyUI's folder of embeddings: `embedding:NAME`
names the person in every prompt, without nodes, and less well."""
_EXIT = "The exit code is 0, 1 after an error, and 3 if the run was interrupted and saved."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: 0 done, 1 an error, 3 interrupted and saved."""
    return run_verb(_parse(arguments), _load_verbs)


def _load_verbs() -> Any:
    from . import host_command

    return host_command


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infinite_id.staged_identity",
        description="SeFi-IDE: a person as words that change with the noise level.",
        epilog=_EXIT,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_learn(verbs.add_parser("learn", help="photos -> staged words", description=_LEARN))
    export = verbs.add_parser("export", help="staged words -> an embedding", description=_EXPORT)
    export.add_argument("identity", metavar="IDENTITY", help="staged words, as people/anna")
    add_place(export)
    add_plan(verbs)
    return parser.parse_args(arguments)


def _add_learn(parser: argparse.ArgumentParser) -> None:
    add_photos(parser, "picture")
    add_place(parser)
    add_run(parser, steps=600, rate=1e-4)
    parser.add_argument(
        "--prompt",
        default="a photo of the face of V*",
        help="what the photos show, with V* for the person; default: %(default)s",
    )
    parser.add_argument(
        "--noun", default="person", help="what the person is, in one word; default: %(default)s"
    )
    parser.add_argument(
        "--attention",
        type=float,
        default=0.003,
        metavar="LAMBDA",
        help="how much the words are held to where the noun acts; default: 0.003",
    )
    parser.add_argument("--stages", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--no-split", action="store_true", help="the same words for keys and for values"
    )
    parser.add_argument(
        "--masked", action="store_true", help="learn face and hair, and nothing else of the photo"
    )

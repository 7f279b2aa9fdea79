"""The command: `learn` trains an embedding, `words` makes one untrained, `mix` makes one of two.

It does the same as the nodes. An interrupted run goes on with the same command.
"""

# torch and ComfyUI are imported inside the functions: `--help` needs neither.

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..words.options import add_photos, add_place, add_plan, add_run, run_verb

_LEARN = """Learns two words for the person in the photos, and writes them into ComfyUI's folder of
embeddings: `embedding:NAME` names the person in every prompt. Give the same command again after an
interruption: it goes on."""
_WORDS = """Makes an embedding of further photos of a person who was learnt before, by what was
learnt then. Nothing is trained."""
_MIX = """Makes an embedding between two learned people of the same CLIP."""
_EXIT = "The exit code is 0, 1 after an error, and 3 if the run was interrupted and saved."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: 0 done, 1 an error, 3 interrupted and saved."""
    return run_verb(_parse(arguments), _load_verbs)


def _load_verbs() -> Any:
    from . import host_command

    return host_command


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infinite_id.stable_identity",
        description="StableIdentity: a photo of a person becomes two words of CLIP.",
        epilog=_EXIT,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_learn(verbs.add_parser("learn", help="photos -> an embedding", description=_LEARN))
    words = verbs.add_parser("words", help="further photos -> an embedding", description=_WORDS)
    add_photos(words, "headshot")
    words.add_argument(
        "--learned", required=True, metavar="NAME", help="the person who was learnt before"
    )
    add_place(words)
    mix = verbs.add_parser("mix", help="two embeddings -> one between", description=_MIX)
    mix.add_argument("first", metavar="FIRST", help="a learned embedding, as people/anna")
    mix.add_argument("second", metavar="SECOND", help="another one")
    mix.add_argument("--share", type=float, default=0.5, help="of the second, 0 to 1; default: 0.5")
    add_place(mix)
    add_plan(verbs)
    return parser.parse_args(arguments)


def _add_learn(parser: argparse.ArgumentParser) -> None:
    add_photos(parser, "headshot")
    add_place(parser)
    add_run(parser, steps=450, rate=5e-5)
    parser.add_argument(
        "--names", type=Path, metavar="FILE", help="names of two words, one a line; default: ours"
    )
    parser.add_argument(
        "--landing", choices=("joint", "per word", "none"), default="joint", help="default: joint"
    )
    parser.add_argument(
        "--loss",
        choices=("two phases", "noise alone", "reconstruction alone"),
        default="two phases",
        help="default: two phases",
    )
    parser.add_argument("--no-masks", action="store_true", help="learn the whole headshot")

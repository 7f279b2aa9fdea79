"""The command's verbs; ComfyUI's own loaders load the models."""

from __future__ import annotations

import argparse
from pathlib import Path

import folder_paths

from ..errors import UserError
from ..files import digest_of
from ..training.host_follow import follow_signals
from ..words.host_command import (
    load_checkpoint,
    load_nets,
    make_tell,
    read_material,
)
from ..words.naming import IfTaken, check_name, choose_path
from . import embedding_file, staged_file
from .host_count import tell_plan
from .host_learn import Lesson, Wishes, check_prompt, describe
from .host_learn import learn as learn_words

STAGED, RUNS = "infinite_id_staged", "infinite_id_runs"
"""Names as in the nodes: a folder in ComfyUI's models folder, and one in its output folder."""


def learn(options: argparse.Namespace) -> int:
    """`learn`: photos -> staged words. Raises UserError, saying what to do."""
    wishes = _read_wishes(options)
    material, nets = read_material(options, options.held_out), load_nets(options)
    lesson = Lesson(*load_checkpoint(options.model), nets, material, wishes)
    origin = describe(lesson)
    path = choose_path(
        [_staged_folders()[0]],
        check_name(options.name),
        IfTaken(options.if_taken),
        digest_of(origin),
        staged_file.read_run,
    )
    runs = options.runs or Path(folder_paths.get_output_directory(), RUNS)
    result = learn_words(lesson, origin, runs, make_tell(), follow_signals)
    print("\n".join(result.lines))
    if result.run.step:
        staged_file.save(result.staged, path, replaces=path.exists())
        print(f"{path}: {result.told}; choose it in Staged Identity Prompt")
    return 0 if result.run.whole else 3


def plan(options: argparse.Namespace) -> int:
    """`plan`: what memory learning takes."""
    del options
    print(tell_plan(), end="")
    return 0


def export(options: argparse.Namespace) -> int:
    """`export`: staged words -> an embedding. Raises UserError."""
    name = f"{check_name(options.identity)}.safetensors"
    found = next((root / name for root in _staged_folders() if (root / name).is_file()), None)
    if found is None:
        listed = ", ".join(map(str, _staged_folders()))
        raise UserError(f"There is no {name} in {listed}. Learn the person first.")
    staged = staged_file.load(found)
    roots = [Path(root) for root in folder_paths.get_folder_paths("embeddings")]
    path = choose_path(
        roots,
        check_name(options.name),
        IfTaken(options.if_taken),
        staged.origin.run,
        embedding_file.read_run,
    )
    embedding_file.save(staged, path)
    inside = path.relative_to(roots[0]).as_posix().removesuffix(".safetensors")
    print(f"{path}: write embedding:{inside} into a prompt")
    return 0


def _read_wishes(options: argparse.Namespace) -> Wishes:
    check_prompt(options.prompt)
    for name, least in (("steps", 1), ("stages", 1), ("attention", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} is {getattr(options, name)}; it must be {least} or more.")
    if options.stages > staged_file.MOST_STAGES:
        raise UserError(f"--stages is {options.stages}; {staged_file.MOST_STAGES} is the most.")
    return Wishes(
        options.steps,
        options.rate,
        options.seed,
        options.size,
        options.stages,
        not options.no_split,
        options.attention,
        options.prompt,
        options.noun,
        not options.no_checkpointing,
        options.masked,
    )


def _staged_folders() -> list[Path]:
    known = folder_paths.folder_names_and_paths.get(STAGED, ([], set()))[0]
    return [*map(Path, known), Path(folder_paths.models_dir, STAGED)]

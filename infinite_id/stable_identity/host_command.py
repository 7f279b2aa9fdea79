"""The command's verbs; ComfyUI's own loaders load the models."""

from __future__ import annotations

import argparse
from pathlib import Path

import folder_paths

from ..errors import UserError
from ..files import digest_of
from ..host.models import find_file
from ..training.host_follow import follow_signals
from ..words.host_command import (
    load_checkpoint,
    load_nets,
    make_tell,
    read_material,
)
from ..words.naming import IfTaken, check_name
from . import mapper_file, word_file
from .celebs import read_names
from .host_count import tell_plan
from .host_learn import Lesson, Result, Wishes, describe
from .host_learn import learn as learn_words
from .keep import Place, choose_place, keep
from .mapper import Landing
from .mapper_file import Learned
from .objective import Phases

MAPPERS, RUNS = "infinite_id_mappers", "infinite_id_runs"
"""Names as in the nodes: a folder in ComfyUI's models folder, and one in its output folder."""


def learn(options: argparse.Namespace) -> int:
    """`learn`: photos -> an embedding. Raises UserError, saying what to do."""
    wishes = Wishes(
        options.steps,
        options.rate,
        options.seed,
        options.size,
        read_names(options.names.read_text("utf-8") if options.names else ""),
        not options.no_checkpointing,
        Landing(options.landing),
        Phases(options.loss),
        not options.no_masks,
    )
    if options.steps < 1:
        raise UserError(f"--steps is {options.steps}; it must be at least 1.")
    runs = options.runs or Path(folder_paths.get_output_directory(), RUNS)
    return _run(options, wishes, None, options.held_out, runs)


def plan(options: argparse.Namespace) -> int:
    """`plan`: what memory learning takes."""
    del options
    print(tell_plan(), end="")
    return 0


def words(options: argparse.Namespace) -> int:
    """`words`: further photos -> an embedding, by an existing mapper. Raises UserError."""
    name = f"{check_name(options.learned)}.safetensors"
    path = next((root / name for root in _mapper_folders() if (root / name).is_file()), None)
    if path is None:
        raise UserError(
            f"--learned: there is no {name} in {', '.join(map(str, _mapper_folders()))}. Learn "
            "the person first."
        )
    wishes = Wishes(0, 1.0, 0, options.size, read_names(""))
    return _run(options, wishes, mapper_file.load(path), None, Path())  # nothing runs


def mix(options: argparse.Namespace) -> int:
    """`mix`: two embeddings -> one between them. Raises UserError."""
    if not 0 <= options.share <= 1:
        raise UserError(f"--share is {options.share}; it must be 0 to 1.")
    a, b = (
        word_file.load(find_file("mix", "embeddings", f"{check_name(name)}.safetensors"))
        for name in (options.first, options.second)
    )
    run = digest_of("mix", a.run, b.run, options.share)
    place = _choose(options, run)
    keep(place, word_file.mix(a, b, options.share, run), None)
    print(f"{place.words}: write {place.prompt} into a prompt")
    return 0


def _run(
    options: argparse.Namespace,
    wishes: Wishes,
    start: Learned | None,
    held_out: Path | None,
    runs: Path,
) -> int:
    material = read_material(options, held_out)
    nets = load_nets(options)
    if nets.analysis is None and nets.clip_vision is None:
        raise UserError("Give a face encoder: --face-pack, or --clip-vision.")
    lesson = Lesson(*load_checkpoint(options.model), nets, material, wishes, start)
    origin = describe(lesson)
    place = _choose(options, digest_of(origin))
    return _tell_of(place, learn_words(lesson, origin, runs, make_tell(), follow_signals))


def _tell_of(place: Place, result: Result) -> int:
    print("\n".join(result.lines))
    if result.run.step or result.run.whole:
        keep(place, result.words, result.learned)
        print(f"{place.words}: {result.told}; write {place.prompt} into a prompt")
    return 0 if result.run.whole else 3


def _choose(options: argparse.Namespace, run: str) -> Place:
    embeddings = [Path(root) for root in folder_paths.get_folder_paths("embeddings")]
    policy = IfTaken(options.if_taken)
    return choose_place(embeddings, _mapper_folders()[0], options.name, policy, run)


def _mapper_folders() -> list[Path]:
    known = folder_paths.folder_names_and_paths.get(MAPPERS, ([], set()))[0]
    return [*map(Path, known), Path(folder_paths.models_dir, MAPPERS)]

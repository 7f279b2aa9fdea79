"""The command's verbs; ComfyUI's own loaders load the models."""

from __future__ import annotations

import argparse
from pathlib import Path

import folder_paths

from ..errors import UserError
from ..faces.face import Photo
from ..faces.model_pack import load_analysis
from ..files import digest_of
from ..host.models import find_face_pack, find_file, load_clip_vision
from ..words.host_command import follow, load_checkpoint, make_tell, read_photo
from ..words.naming import IfTaken, check_name
from . import mapper_file, word_file
from .celebs import read_names
from .host_faces import GivenMasks, Nets
from .host_learn import Lesson, Material, Result, Wishes, describe
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
    held_out = None if options.held_out is None else read_photo(options.held_out)
    runs = options.runs or Path(folder_paths.get_output_directory(), RUNS)
    return _run(options, wishes, None, held_out, runs)


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
    held_out: Photo | None,
    runs: Path,
) -> int:
    material = Material(*_read_photos(options), held_out)
    nets = _load_nets(options)
    lesson = Lesson(*load_checkpoint(options.model), nets, material, wishes, start)
    origin = describe(lesson)
    place = _choose(options, digest_of(origin))
    return _tell_of(place, learn_words(lesson, origin, runs, make_tell(), follow))


def _tell_of(place: Place, result: Result) -> int:
    print("\n".join(result.lines))
    if result.step or result.whole:
        keep(place, result.words, result.learned)
        print(f"{place.words}: {result.told}; write {place.prompt} into a prompt")
    return 0 if result.whole else 3


def _choose(options: argparse.Namespace, run: str) -> Place:
    embeddings = [Path(root) for root in folder_paths.get_folder_paths("embeddings")]
    policy = IfTaken(options.if_taken)
    return choose_place(embeddings, _mapper_folders()[0], options.name, policy, run)


def _mapper_folders() -> list[Path]:
    known = folder_paths.folder_names_and_paths.get(MAPPERS, ([], set()))[0]
    return [*map(Path, known), Path(folder_paths.models_dir, MAPPERS)]


def _load_nets(options: argparse.Namespace) -> Nets:
    analysis = clip_vision = None
    if options.face_pack:
        pack = find_face_pack(options.face_pack)
        analysis = load_analysis(pack, options.provider, options.detection_size)
    if options.clip_vision:
        path = find_file("--clip-vision", "clip_vision", options.clip_vision)
        clip_vision = load_clip_vision(path)
    if analysis is None and clip_vision is None:
        raise UserError("Give a face encoder: --face-pack, or --clip-vision.")
    return Nets(analysis, clip_vision)


def _read_photos(options: argparse.Namespace) -> tuple[dict[str, Photo], list[GivenMasks]]:
    photos = {str(path): read_photo(path) for path in options.photos}
    paths = options.face_mask or [None] * len(photos)
    if len(paths) != len(photos):
        raise UserError(f"--face-mask: {len(paths)} masks for {len(photos)} photos.")
    return photos, [
        _read_mask(path, photo) for path, photo in zip(paths, photos.values(), strict=True)
    ]


def _read_mask(path: Path | None, photo: Photo) -> GivenMasks:
    if path is None:
        return GivenMasks()
    mask = read_photo(path)
    if mask.shape != photo.shape:
        raise UserError(f"--face-mask: {path} has not the size of its photo.")
    return GivenMasks(face=mask.mean(axis=2, dtype="float32") / 255)

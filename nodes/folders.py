"""Model folders of the pack, registered with the host so that extra_model_paths.yaml works."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import folder_paths

from ..infinite_id.faces import model_pack
from . import slow_folders
from .slow_folders import ask, describe_failure, show, walk, warn

T = TypeVar("T")

FACE_MODELS = "insightface"
OWN = "infinite_id"
ADAPTERS = (OWN, "ipadapter", "instantid")
"""Folders with adapters: the pack's own, and those of the packs whose files it reads."""
IDENTITIES = "infinite_id_identities"

EMBEDDINGS = "embeddings"
"""The host's own folder of embeddings, which prompts name by `embedding:`."""
STAGED = "infinite_id_staged"
"""Staged words, which are no embeddings."""
MAPPERS = "infinite_id_mappers"
"""Mappers of learned embeddings. Prompts would find them if they were in the same folder."""

FACE_PARSERS = "infinite_id_parsers"
"""ONNX face parsers."""

DATASETS = "datasets"
"""The host's own folder of training data."""
PREPARED = "index.jsonl"
"""The file that `prepare` writes last."""
TRAINED, RUNS = "infinite_id", "infinite_id_runs"
"""In the output folder: adapters that were trained here, and what a run needs to go on."""

_ADAPTER_EXTENSIONS = {".safetensors", ".bin"}
_IDENTITY_EXTENSION = ".safetensors"


def register() -> None:
    """Add the pack's folders, and keep those that another pack or the user has set."""
    for name in ADAPTERS:
        _add(name, _ADAPTER_EXTENSIONS)
    output = Path(folder_paths.get_output_directory())
    folder_paths.add_model_folder_path(OWN, str(output / TRAINED))
    if DATASETS not in folder_paths.folder_names_and_paths:  # older hosts have none
        folder_paths.add_model_folder_path(DATASETS, str(Path(folder_paths.base_path, DATASETS)))
    _add(FACE_MODELS, {".onnx"})
    _add(IDENTITIES, {_IDENTITY_EXTENSION})
    _add(MAPPERS, {".safetensors"})
    _add(STAGED, {".safetensors"})
    _add(FACE_PARSERS, {".onnx"})


def _add(name: str, extensions: set[str]) -> None:
    known = name in folder_paths.folder_names_and_paths
    folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir, name)))
    if not known:
        folder_paths.folder_names_and_paths[name][1].update(extensions)


def roots(name: str) -> list[Path]:
    """The folders that the host searches for a kind of model."""
    return [Path(path) for path in folder_paths.get_folder_paths(name)]


def list_files(name: str) -> list[str]:
    """Return the host's list of a kind of model. If the host fails, list what can be read."""
    try:
        return ask(name, lambda: folder_paths.get_filename_list(name))
    except OSError:
        endings = folder_paths.folder_names_and_paths[name][1]
        found = {
            str(path.relative_to(root))
            for root in roots(name)
            for path in _walk(root)[0]
            if not endings or path.suffix.lower() in endings
        }
        return sorted(found)


def _walk(root: Path, deep: bool = True, links: bool = True) -> tuple[list[Path], list[str]]:
    """The files below a folder, and a sentence for each folder there that cannot be read."""
    problems: list[str] = []

    def note(path: Path, error: OSError) -> None:
        problems.append(describe_failure(path, error))

    try:
        files = ask(root, lambda: list(walk(root, note, deep, links)))
    except OSError as error:
        files = []
        problems.append(describe_failure(root, error))
    for problem in problems:
        warn(problem)
    return files, problems


def list_problems(names: Iterable[str]) -> list[str]:
    """A sentence for each folder of these kinds of model that cannot be read."""
    found = (problem for name in names for root in roots(name) for problem in _walk(root)[1])
    return list(dict.fromkeys(found))


def list_packs() -> dict[str, Path]:
    """InsightFace model packs: name -> the folder that holds its .onnx files."""
    packs: dict[str, Path] = {}
    for root in roots(FACE_MODELS):
        try:
            found = ask(("packs", root), partial(model_pack.list_packs, [root], _warn))
        except OSError as error:
            _warn(root, error)
        else:
            packs = found | packs
    return packs


def _warn(place: Path, error: OSError) -> None:
    warn(describe_failure(place, error))


def find_pack(name: str) -> Path:
    """The folder of an entry of `list_packs`. Raises FileNotFoundError."""
    packs = list_packs()
    if name not in packs:
        raise _missing("face model", name, [FACE_MODELS], "Load Face Analysis")
    return packs[name]


def list_adapters() -> list[str]:
    """List adapter files: the pack's own by name, others by their folder's name and their own."""
    return [
        file if name == OWN else f"{name}/{file}"
        for name in ADAPTERS
        for file in list_files(name)
        if Path(file).suffix.lower() in _ADAPTER_EXTENSIONS
    ]


def find_adapter(choice: str) -> Path:
    """The file that an entry of `list_adapters` stands for. Raises FileNotFoundError."""
    folder, _, file = choice.partition("/")
    if folder in ADAPTERS[1:] and choice not in list_files(OWN):
        return find_file(folder, file, "adapter", "Load Infinite-ID Model")
    return find_file(OWN, choice, "adapter", "Load Infinite-ID Model")


def find_file(folder: str, file: str, kind: str, node: str) -> Path:
    """Return a file of the host's list of a kind of model.

    Raises:
        FileNotFoundError: if it is not there; the message says what to do.
    """
    problems = []
    inside = Path("/", file).relative_to("/") if ".." not in Path(file).parts else Path()
    for root in roots(folder):
        try:
            path = slow_folders.find_below(root, str(inside))
        except OSError as error:
            problems.append(describe_failure(root / inside, error))
        else:
            if path is not None:
                return path
    raise _missing(kind, file, [folder], node, problems)


def _missing(
    kind: str, name: str, names: Iterable[str], node: str, problems: Iterable[str] = ()
) -> FileNotFoundError:
    names = list(names)
    known = dict.fromkeys([*problems, *list_problems(names)])
    return FileNotFoundError(
        f"There is no {kind} '{show(name)[:200]}' here. Put it into models/{names[0]}, refresh the "
        f"page's lists (R), and choose it in {node}."
        + "".join(f" PROBLEM: {problem}" for problem in known)
    )


def list_prepared() -> list[str]:
    """Folders in the host's datasets folders that the trainer's `prepare` has written."""
    found, problems = _look_for_prepared()
    for problem in problems:
        warn(problem)
    return sorted(found)


def _look_for_prepared() -> tuple[dict[str, Path], list[str]]:
    """The prepared folders by their names, and a sentence for each that cannot be read."""
    found: dict[str, Path] = {}
    problems: list[str] = []

    def look(place: Path, question: Callable[[Path], T]) -> T | None:
        try:
            return question(place)
        except OSError as error:
            problems.append(describe_failure(place, error))
            return None

    for root in roots(DATASETS):
        for folder in look(root, _list_folder) or ():
            if look(folder, lambda folder: slow_folders.find_below(folder, PREPARED)):
                found.setdefault(folder.name, folder)
    return found, problems


def _list_folder(folder: Path) -> list[Path]:
    try:
        return ask(("folder", folder), lambda: sorted(folder.iterdir()))
    except (FileNotFoundError, NotADirectoryError):
        return []


def find_prepared(choice: str) -> Path:
    """The folder that an entry of `list_prepared` stands for. Raises FileNotFoundError."""
    found, problems = _look_for_prepared()
    if choice not in found:
        raise FileNotFoundError(
            f"There are no prepared photos '{show(choice)[:200]}' in ComfyUI's datasets folder. "
            "Run `python -m infinite_id.training prepare PHOTOS --out datasets/NAME ...`, refresh "
            "the page's lists (R), and choose them."
            + "".join(f" PROBLEM: {problem}" for problem in problems)
        )
    return found[choice]


def list_identities() -> list[str]:
    """Identity files: those of the models folder by their names, then saved and uploaded ones.

    The latter are named as the host names files of its output and input folders.
    """
    own = list_files(IDENTITIES)
    (output, saved), (input_, uploaded) = _look_for_identities()
    return [
        *(file for file in own if Path(file).suffix.lower() == _IDENTITY_EXTENSION),
        *(f"{name} [output]" for name in _name_identities(saved[0], output)),
        *(f"{name} [input]" for name in _name_identities(uploaded[0], input_)),
    ]


def _look_for_identities() -> list[tuple[Path, tuple[list[Path], list[str]]]]:
    """The host's output and input folders, each with its files and problems.

    Links are not followed: the host opens nothing that lies elsewhere.
    """
    output = Path(folder_paths.get_output_directory())
    input_ = Path(folder_paths.get_input_directory())
    return [
        (output, _walk(output / "identities", links=False)),
        (input_, _walk(input_, deep=False, links=False)),
    ]


def _name_identities(files: Iterable[Path], base: Path) -> list[str]:
    found = (path for path in files if path.suffix.lower() == _IDENTITY_EXTENSION)
    return sorted(path.relative_to(base).as_posix() for path in found)


def find_identity(choice: str) -> Path:
    """The file that an entry of `list_identities` stands for; no other is ever opened.

    Raises:
        FileNotFoundError: if it is not an entry, or is one no longer.
    """
    if choice not in list_identities():
        elsewhere = [problem for _, (_, found) in _look_for_identities() for problem in found]
        problems = dict.fromkeys([*list_problems([IDENTITIES]), *elsewhere])
        raise FileNotFoundError(
            f"There is no identity file '{show(choice)[:200]}' here. Put it into "
            f"models/{IDENTITIES} or ComfyUI's input folder, refresh the page's lists (R), and "
            "choose it in Load Identity." + "".join(f" PROBLEM: {problem}" for problem in problems)
        )
    _, folder = folder_paths.annotated_filepath(choice)
    if folder is None:
        return find_file(IDENTITIES, choice, "identity file", "Load Identity")
    try:
        return Path(folder_paths.get_annotated_filepath(choice))
    except ValueError as error:  # the host's word for a link that leads elsewhere
        raise FileNotFoundError(
            f"The identity file '{show(choice)[:200]}' is a link out of its folder, and ComfyUI "
            f"opens none. Put the file itself into models/{IDENTITIES}."
        ) from error


def check(find: Callable[[str], Path], choice: str | None) -> bool | str:
    """For a node's `validate_inputs`: True if a chosen file is here, else why not in a sentence.

    None stands for a value from another node, which is not known yet.
    """
    if choice is not None:
        try:
            find(choice)
        except FileNotFoundError as error:
            return str(error)
    return True


def fingerprint(find: Callable[[str], Path], choice: str | None) -> Any:
    """For a node's `fingerprint_inputs`: a value that changes with a chosen file.

    None stands for a value from another node, which has a fingerprint of its own.
    """
    if choice is None:
        return None
    stat = find(choice).stat()
    return stat.st_size, stat.st_mtime_ns

"""Model folders of the pack, registered with the host so that extra_model_paths.yaml works."""

from pathlib import Path

import folder_paths

FACE_MODELS = "insightface"
OWN = "infinite_id"
ADAPTERS = (OWN, "ipadapter", "instantid")
"""Folders with adapters: the pack's own, and those of the packs whose files it reads."""
IDENTITIES = "infinite_id_identities"

_ADAPTER_EXTENSIONS = {".safetensors", ".bin"}
_IDENTITY_EXTENSION = ".safetensors"


def register() -> None:
    """Add the pack's folders; ones that another pack or the user has set are kept."""
    for name in ADAPTERS:
        _add(name, _ADAPTER_EXTENSIONS)
    _add(FACE_MODELS, {".onnx"})
    _add(IDENTITIES, {_IDENTITY_EXTENSION})


def _add(name: str, extensions: set[str]) -> None:
    known = name in folder_paths.folder_names_and_paths
    folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir, name)))
    if not known:
        folder_paths.folder_names_and_paths[name][1].update(extensions)


def roots(name: str) -> list[Path]:
    """The folders that the host searches for a kind of model."""
    return [Path(path) for path in folder_paths.get_folder_paths(name)]


def list_adapters() -> list[str]:
    """Adapter files: the pack's own by their names, others behind their folder's name."""
    return [
        file if name == OWN else f"{name}/{file}"
        for name in ADAPTERS
        for file in folder_paths.get_filename_list(name)
        if Path(file).suffix in _ADAPTER_EXTENSIONS
    ]


def find_adapter(choice: str) -> Path:
    """The file that an entry of `list_adapters` stands for. Raises FileNotFoundError."""
    folder, _, file = choice.partition("/")
    if folder in ADAPTERS[1:] and choice not in folder_paths.get_filename_list(OWN):
        return Path(folder_paths.get_full_path_or_raise(folder, file))
    return Path(folder_paths.get_full_path_or_raise(OWN, choice))


def list_identities() -> list[str]:
    """Identity files: those of the models folder by their names, then saved and uploaded ones.

    The latter are named as the host names files of its output and input folders.
    """
    own = folder_paths.get_filename_list(IDENTITIES)
    output, input_ = folder_paths.get_output_directory(), folder_paths.get_input_directory()
    return [
        *(file for file in own if Path(file).suffix == _IDENTITY_EXTENSION),
        *(f"{file} [output]" for file in _list_files(output, "identities/**/*")),
        *(f"{file} [input]" for file in _list_files(input_, "*")),
    ]


def _list_files(folder: str, pattern: str) -> list[str]:
    found = Path(folder).glob(pattern + _IDENTITY_EXTENSION)
    return sorted(path.relative_to(folder).as_posix() for path in found if path.is_file())


def find_identity(choice: str) -> Path:
    """The file that an entry of `list_identities` stands for; no other is ever opened.

    Raises:
        FileNotFoundError: if it is no entry, or no longer.
    """
    if choice not in list_identities():
        raise FileNotFoundError(
            f"There is no identity file '{choice[:200]}' here. Put it into "
            f"models/{IDENTITIES} or ComfyUI's input folder, refresh the page's lists (R), and "
            "choose it in Load Identity."
        )
    _, folder = folder_paths.annotated_filepath(choice)
    if folder is None:
        return Path(folder_paths.get_full_path_or_raise(IDENTITIES, choice))
    return Path(folder_paths.get_annotated_filepath(choice))

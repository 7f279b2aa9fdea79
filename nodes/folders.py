"""Model folders of the pack, registered with the host so that extra_model_paths.yaml works."""

from pathlib import Path

import folder_paths

FACE_MODELS = "insightface"
OWN = "infinite_id"
ADAPTERS = (OWN, "ipadapter", "instantid")
"""Folders with adapters: the pack's own, and those of the packs whose files it reads."""

_ADAPTER_EXTENSIONS = {".safetensors", ".bin"}


def register() -> None:
    """Add the pack's folders; ones that another pack or the user has set are kept."""
    for name in ADAPTERS:
        _add(name, _ADAPTER_EXTENSIONS)
    _add(FACE_MODELS, {".onnx"})


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

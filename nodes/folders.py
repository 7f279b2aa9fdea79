"""Model folders of the pack, registered with the host so that extra_model_paths.yaml works."""

from pathlib import Path

import folder_paths

ADAPTERS = "infinite_id"
FACE_MODELS = "insightface"


def register() -> None:
    """Add the pack's folders; ones that another pack or the user has set are kept."""
    _add(ADAPTERS, {".safetensors"})
    _add(FACE_MODELS, {".onnx"})


def _add(name: str, extensions: set[str]) -> None:
    known = name in folder_paths.folder_names_and_paths
    folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir, name)))
    if not known:
        folder_paths.folder_names_and_paths[name][1].update(extensions)


def roots(name: str) -> list[Path]:
    """The folders that the host searches for a kind of model."""
    return [Path(path) for path in folder_paths.get_folder_paths(name)]

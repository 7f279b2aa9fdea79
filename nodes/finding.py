"""Finds the models of a preset among the user's files by their contents, not by their names."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..infinite_id.adapters import formats
from ..infinite_id.adapters.formats import FormatError
from ..infinite_id.adapters.mappers import Recipe
from ..infinite_id.adapters.mappers.base import name_clip_model
from ..infinite_id.attention.blocks import Layers
from ..infinite_id.presets import CLIP_MODELS, FACE_PACKS, PRESETS, Preset
from ..infinite_id.tensor_files import open_tensors
from . import folders

CLIP_VISION = "clip_vision"
_CLASS_EMBEDDINGS = ("vision_model.embeddings.class_embedding", "visual.class_embedding")


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as the loaders list it, and what its header says."""

    choice: str
    recipe: Recipe
    layers: Layers
    has_lora: bool


def list_adapter_files(name: str) -> list[AdapterFile]:
    """The adapters of a preset's kind, those with a LoRA first."""
    found = []
    for choice in folders.list_adapters():
        try:
            path = folders.find_adapter(choice)
            recipe, layers, has_lora = _inspect(path, *_stamp(path))
        except (FormatError, OSError):  # Diagnose says why
            continue
        if recipe.name == name:
            found.append(AdapterFile(choice, recipe, layers, has_lora))
    return sorted(found, key=lambda file: not file.has_lora)


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=256)
def _inspect(path: Path, _size: int, _time: int) -> tuple[Recipe, Layers, bool]:
    adapter = formats.inspect(path)
    return adapter.config.mapper.recipe, adapter.config.layers, adapter.lora is not None


def find_clip_vision(clip_model: str) -> Path | None:
    """A file of this CLIP image encoder."""
    for name in folders.list_files(CLIP_VISION):
        try:
            path = folders.find_file(CLIP_VISION, name, "CLIP vision model", "Load CLIP Vision")
            if name_clip_file(path, *_stamp(path)) == clip_model:
                return path
        except (FormatError, OSError):  # Diagnose says why
            continue
    return None


@lru_cache(maxsize=256)
def name_clip_file(path: Path, _size: int, _time: int) -> str:
    """Which CLIP image encoder a file holds; empty if none.

    Raises:
        FormatError: if the file is damaged.
    """
    with open_tensors(path) as file:
        widths = (file.shapes[name][-1] for name in _CLASS_EMBEDDINGS if name in file.shapes)
        return next((name_clip_model(width) for width in widths), "")


def list_face_packs(face_model: str) -> list[str]:
    """The packs that hold this face model's recogniser; all packs for a model of another name."""
    packs = folders.list_packs()
    known = FACE_PACKS.get(face_model)
    return [n for n, folder in packs.items() if not known or (folder / known.recogniser).exists()]


def list_gaps(name: str, face_pack: str | None = None) -> list[str]:
    """List what a preset lacks on this machine, with name, size, link and folder.

    Args:
        face_pack: a pack that the user chose instead of the preset's own.
    """
    return list(_list_gaps(name, PRESETS[name], face_pack))


def _list_gaps(name: str, preset: Preset, face_pack: str | None) -> Iterator[str]:
    if not list_adapter_files(name):
        yield str(preset.adapter or f"an {name} adapter (none is published) in models/infinite_id")
    if preset.finds_faces and not face_pack and not list_face_packs(preset.face_model):
        known = FACE_PACKS.get(preset.face_model)
        yield str(known.download if known else f"a face model: {FACE_PACKS['buffalo_l'].download}")
    if preset.clip_model and not find_clip_vision(preset.clip_model):
        yield str(CLIP_MODELS[preset.clip_model])


def stamp(name: str) -> list[tuple[str, int, int]]:
    """Return a value that changes if another file would be loaded."""
    files = [folders.find_adapter(file.choice) for file in list_adapter_files(name)]
    clip = find_clip_vision(PRESETS[name].clip_model)
    return [(str(path), *_stamp(path)) for path in [*files, *([clip] if clip else [])]]

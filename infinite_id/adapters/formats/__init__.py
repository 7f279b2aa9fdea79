"""Adapter files, recognised by their contents, or by their names if the contents are ambiguous."""

from dataclasses import replace
from pathlib import Path

import torch

from ...tensor_files import KNOWN, FormatError, TensorFile, open_tensors
from ..adapter import Adapter
from ..mappers.ip_adapter import Kind
from . import foreign, ip_adapter, native
from .native import save

__all__ = ["FormatError", "Kind", "inspect", "load", "save"]


def load(path: Path, shortcut_scale: float = 1.0, kind: Kind | None = None) -> Adapter:
    """Read an adapter of any known format; weights keep the file's dtype, on the CPU.

    Args:
        path: a `.safetensors` file, or a PyTorch `.bin`.
        shortcut_scale: for FaceID PlusV2, see `FaceIDPlusConfig`.
        kind: which kind the file is, if several kinds have its tensors; None: as its name says.

    Raises:
        FormatError: if the file is damaged, is none of the known formats, or its tensors do not
            fit its format. Shapes are checked before anything is read, and nothing is executed.
        FileNotFoundError: if there is no such file.
    """
    with open_tensors(path) as file:
        adapter = _load(file, shortcut_scale, kind)
    adapter.requires_grad_(False)
    adapter.name = path.name
    return adapter


def inspect(path: Path) -> Adapter:
    """Return what `load` returns, but from the file's header alone: weights are on meta.

    Raises: as `load` does.
    """
    with open_tensors(path) as file:
        without = replace(file, read=lambda n: torch.empty(file.shapes[n], device="meta"))
        adapter = _load(without, 1, None)
    adapter.name = path.name
    return adapter


def _load(file: TensorFile, shortcut_scale: float, kind: Kind | None) -> Adapter:
    if native.matches(file.metadata):
        return native.load(file)
    foreign.refuse(file.path, file.shapes)
    if ip_adapter.matches(file.shapes):
        return ip_adapter.load(file, shortcut_scale, kind)
    raise FormatError(
        f"{file.path.name} is no adapter that this pack knows. {KNOWN} It holds "
        f"{len(file.shapes)} tensors, such as "
        f"{', '.join(name[:100] for name in list(file.shapes)[:3])}."
    )

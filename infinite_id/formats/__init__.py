"""Adapter files, recognised by their contents and never by their names."""

from dataclasses import replace
from pathlib import Path

import torch

from ..adapter import Adapter
from . import ip_adapter, native
from .errors import FormatError
from .files import TensorFile, open_tensors
from .native import save

__all__ = ["FormatError", "inspect", "load", "save"]


def load(path: Path, shortcut_scale: float = 1.0) -> Adapter:
    """Read an adapter of any known format; weights keep the file's dtype, on the CPU.

    Args:
        path: a `.safetensors` file, or a PyTorch `.bin`.
        shortcut_scale: for FaceID PlusV2, see `FaceIDPlusConfig`.

    Raises:
        FormatError: if the file is damaged, is none of the known formats, or its tensors do not
            fit its format. Shapes are checked before anything is read, and nothing is executed.
        FileNotFoundError: if there is no such file.
    """
    with open_tensors(path) as file:
        adapter = _load(file, shortcut_scale)
    adapter.requires_grad_(False)
    adapter.name = path.name
    return adapter


def inspect(path: Path) -> Adapter:
    """What `load` would give, from the file's header alone: its weights are on the meta device.

    Raises: as `load` does.
    """
    with open_tensors(path) as file:
        adapter = _load(replace(file, read=lambda n: torch.empty(file.shapes[n], device="meta")), 1)
    adapter.name = path.name
    return adapter


def _load(file: TensorFile, shortcut_scale: float) -> Adapter:
    if native.matches(file.metadata):
        return native.load(file)
    if ip_adapter.matches(file.shapes):
        return ip_adapter.load(file, shortcut_scale)
    if any(name.startswith(("id_adapter.", "id_adapter_attn_layers.")) for name in file.shapes):
        raise FormatError(
            f"{file.path.name} is a PuLID adapter. It needs EVA-CLIP, which ComfyUI does not "
            "load: use it with PuLID's own node pack."
        )
    raise FormatError(
        f"{file.path.name} is no adapter that this pack knows (native Infinite-ID, IP-Adapter "
        f"FaceID, FaceID PlusV2, Plus Face, InstantID). It holds {len(file.shapes)} tensors, such "
        f"as {', '.join(name[:100] for name in list(file.shapes)[:3])}."
    )

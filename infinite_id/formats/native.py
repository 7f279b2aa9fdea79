"""The native adapter file: one safetensors file with the architecture in its metadata.

Metadata:
    format: "infinite-id"
    version: "1"
    mapper: JSON object, the fields of `MapperConfig`
    layers: JSON object, block address ("input_4_0") -> width, in order of execution
Tensors: exactly the state dict of `Adapter`:
    mapper.face.proj.0.{weight,bias}  (face_hidden, face_width)
    mapper.face.proj.2.{weight,bias}  (face_tokens * token_width, face_hidden)
    mapper.face.norm.{weight,bias}    (token_width)
    mapper.clip.proj.0.{weight,bias}  (clip_hidden, clip_width)
    mapper.clip.proj.2.{weight,bias}  (token_width, clip_hidden)
    mapper.clip.proj.3.{weight,bias}  (token_width)
    layers.<block>.to_k.weight        (width, token_width), and to_v
Any floating dtype; one dtype a file is usual.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..adapter import Adapter, AdapterConfig
from ..attention.blocks import Block
from ..mapper import MapperConfig
from .errors import FormatError, check_shapes

FORMAT = "infinite-id"
VERSION = "1"
_MAX_WIDTH = 65536
_FLOATS = {"F32", "F16", "BF16"}


def save(adapter: Adapter, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write an adapter. The file appears under its name only when it is complete."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "mapper": json.dumps(asdict(adapter.config.mapper)),
        "layers": json.dumps({str(b): w for b, w in adapter.config.layers.items()}),
    }
    tensors = {k: v.detach().to(dtype).contiguous() for k, v in adapter.state_dict().items()}
    temporary = path.with_name(f".{path.name}.part")
    save_file(tensors, temporary, metadata)
    temporary.replace(path)


def load(path: Path) -> Adapter:
    """Read an adapter; weights keep the file's dtype, on the CPU.

    Raises:
        FormatError: if the file is damaged, is of another kind, or its tensors do not fit the
            architecture that its metadata declares. Shapes are checked before anything is read.
        FileNotFoundError: if there is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            config = _read_config(path, file.metadata() or {})
            with torch.device("meta"):
                adapter = Adapter(config)
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            expected = {k: tuple(v.shape) for k, v in adapter.state_dict().items()}
            check_shapes(path, {k: tuple(s.get_shape()) for k, s in slices.items()}, expected)
            _check_dtypes(path, {k: s.get_dtype() for k, s in slices.items()})
            tensors = {key: file.get_tensor(key) for key in expected}
    except SafetensorError as error:
        raise FormatError(
            f"{path.name} is damaged or incomplete ({error}). Download or copy it again."
        ) from error
    adapter.load_state_dict(tensors, assign=True)
    adapter.requires_grad_(False)
    adapter.name = path.name
    return adapter


def _read_config(path: Path, metadata: dict[str, str]) -> AdapterConfig:
    if metadata.get("format") != FORMAT:
        raise FormatError(
            f"{path.name} is not a native Infinite-ID adapter: its metadata has no "
            f"'format: {FORMAT}'."
        )
    if metadata.get("version") != VERSION:
        raise FormatError(
            f"{path.name} has format version {metadata.get('version')}; this release reads "
            f"version {VERSION}. Update the node pack."
        )
    try:
        mapper = json.loads(metadata["mapper"])
        layers = json.loads(metadata["layers"])
        config = AdapterConfig(
            MapperConfig(**{field.name: mapper.pop(field.name) for field in fields(MapperConfig)}),
            {Block.parse(block): width for block, width in layers.items()},
        )
        widths = [*asdict(config.mapper).values(), *config.layers.values()]
        if mapper or not all(type(w) is int and 0 < w <= _MAX_WIDTH for w in widths):
            raise ValueError(f"widths out of range or unknown fields: {mapper or widths}")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"{path.name}: its metadata cannot be read ({error!r}).") from error
    return config


def _check_dtypes(path: Path, dtypes: dict[str, str]) -> None:
    wrong = sorted(set(dtypes.values()) - _FLOATS)
    if wrong:
        raise FormatError(f"{path.name} holds {', '.join(wrong)}; expected {sorted(_FLOATS)}.")

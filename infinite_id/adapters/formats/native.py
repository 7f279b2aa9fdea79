"""The native adapter file: one safetensors file with the architecture in its metadata.

Metadata:
    format: "infinite-id"
    version: "1"
    mapper: JSON object, the fields of `MapperConfig`
    layers: JSON object, block address ("input_4_0") -> width, in order of execution
    provenance: JSON object, what it was trained on and how; may be missing
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
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import cast

import torch

from ...attention.blocks import Block
from ...tensor_files import MAX_WIDTH, FormatError, TensorFile, check_shapes, write_tensors
from ..adapter import Adapter, AdapterConfig
from ..mappers import MapperConfig

FORMAT = "infinite-id"
VERSION = "1"
_MAX_LAYERS = 1024


def save(
    adapter: Adapter,
    path: Path,
    dtype: torch.dtype = torch.float16,
    further: Mapping[str, str] | None = None,
) -> None:
    """Write an adapter. The file appears under its name only when it is complete.

    Args:
        further: more metadata, which readers of the adapter do not need.
    """
    metadata = {
        **(further or {}),
        "format": FORMAT,
        "version": VERSION,
        "mapper": json.dumps(asdict(cast(MapperConfig, adapter.config.mapper))),
        "layers": json.dumps({str(b): w for b, w in adapter.config.layers.items()}),
    }
    tensors = {k: v.detach().to(dtype).contiguous() for k, v in adapter.state_dict().items()}
    write_tensors(tensors, path, metadata)


def matches(metadata: Mapping[str, str]) -> bool:
    """Whether a file says that it is a native adapter."""
    return metadata.get("format") == FORMAT


def load(file: TensorFile) -> Adapter:
    """Read an adapter; weights keep the file's dtype, on the CPU.

    Raises:
        FormatError: if the tensors do not fit the architecture that the metadata declares. Shapes
            are checked before anything is read.
    """
    config = _read_config(file.path, file.metadata)
    with torch.device("meta"):
        adapter = Adapter(config)
    expected = {key: tuple(value.shape) for key, value in adapter.state_dict().items()}
    check_shapes(file.path, file.shapes, expected)
    file.check_floats()
    adapter.load_state_dict({key: file.read(key) for key in expected}, assign=True)
    return adapter


def _read_config(path: Path, metadata: dict[str, str]) -> AdapterConfig:
    if metadata.get("version") != VERSION:
        raise FormatError(
            f"{path.name} has format version {metadata.get('version')}; this release reads "
            f"version {VERSION}. Update the node pack."
        )
    try:
        mapper = json.loads(metadata["mapper"])
        layers = json.loads(metadata["layers"])
        mapper_config = MapperConfig(**{f.name: mapper.pop(f.name) for f in fields(MapperConfig)})
        layer_config = {Block.parse(block): width for block, width in layers.items()}
        if len(layer_config) != len(layers) or len(layers) > _MAX_LAYERS:
            raise ValueError(f"{len(layers)} layers, {len(layer_config)} of them different")
        widths = [*asdict(mapper_config).values(), *layer_config.values()]
        if mapper or not all(type(w) is int and 0 < w <= MAX_WIDTH for w in widths):
            raise ValueError(f"widths out of range or unknown fields: {mapper or widths}")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{path.name}: its metadata cannot be read ({repr(error)[:500]})."
        ) from error
    return AdapterConfig(mapper_config, layer_config)

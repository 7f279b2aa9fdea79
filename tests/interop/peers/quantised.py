"""UNets from files of quantised weights, by the pack that reads them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import folder_paths
import torch
from pack.tests.host.world import World, load

from .case import Case

KINDS = ("Q8_0", "Q5_1", "Q4_0")


def gguf_cases(peer: ModuleType, folder: Path) -> Iterator[Case]:
    """The loader's model by itself, in each kind of quantisation: Apply is on it as on any."""
    world = load(folder, "tiny", torch.float32)
    folder_paths.add_model_folder_path("unet", str(folder))
    for kind in KINDS:
        name = _write(world, folder, kind)
        model = peer.NODE_CLASS_MAPPINGS["UnetLoaderGGUF"]().load_unet(name)[0]
        yield Case(f"Unet Loader (GGUF), {kind}", replace(world, model=model), is_idle=True)


def _write(world: World, folder: Path, kind: str) -> str:
    """Write the world's UNet with matrices quantised, as the pack's converter has them."""
    gguf: Any = importlib.import_module("gguf")  # that the pack itself needs
    path = folder / f"{kind}.gguf"
    quantised = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(str(path), "sdxl")
    for name, weight in world.unet.state_dict().items():
        x = weight.float().numpy()
        if x.ndim == 2 and x.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(x, quantised), raw_dtype=quantised)
        else:
            writer.add_tensor(name, x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.name

"""Where a new adapter starts."""

import torch

from ..adapters.adapter import Adapter, AdapterConfig
from ..adapters.mappers import MapperConfig
from ..attention.blocks import list_layers, list_transformers


@torch.no_grad()
def new_adapter(unet: torch.nn.Module, mapper: MapperConfig) -> Adapter:
    """An adapter for a UNet, its K' and V' initialised from each layer's text `to_k`, `to_v`.

    Parameters are float32 on the CPU, trainable.
    """
    adapter = Adapter(AdapterConfig(mapper, list_layers(unet)))
    for block, transformer in list_transformers(unet):
        layer = adapter.get_submodule(f"layers.{block}")
        layer.get_parameter("to_k.weight").copy_(transformer.attn2.to_k.weight)
        layer.get_parameter("to_v.weight").copy_(transformer.attn2.to_v.weight)
    return adapter

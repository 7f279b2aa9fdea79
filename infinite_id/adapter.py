"""The adapter: mappers and one pair of projections K', V' for each cross-attention layer."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from .attention.blocks import SDXL, Block, Layers
from .lora import FaceLoRA
from .mappers import MapperConfig, MapperSpec


@dataclass(frozen=True)
class AdapterConfig:
    """All that fixes the shape of an adapter's weights."""

    mapper: MapperSpec
    layers: Layers

    @classmethod
    def sdxl(cls) -> "AdapterConfig":
        """The published architecture: 70 layers, CLIP ViT-H/14, ArcFace, 4 face tokens."""
        return cls(MapperConfig(), SDXL)


class ImageProjection(nn.Module):
    """K' and V' of one layer: identity tokens -> the layer's width, no bias."""

    def __init__(self, token_width: int, width: int) -> None:
        super().__init__()
        self.to_k = nn.Linear(token_width, width, bias=False)
        self.to_v = nn.Linear(token_width, width, bias=False)


class Adapter(nn.Module):
    """The trained part of Infinite-ID. Training and inference use this one module."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.name = "unsaved adapter"
        self.lora: FaceLoRA | None = None
        self.mapper = config.mapper.build()
        self.layers = nn.ModuleDict(
            {
                str(block): ImageProjection(config.mapper.token_width, width)
                for block, width in config.layers.items()
            }
        )

    def project(self, tokens: Tensor) -> dict[Block, tuple[Tensor, Tensor]]:
        """Project identity tokens `(b, l, token_width)` to K', V' `(b, l, width)` of every layer.

        The result has the tokens' device and dtype. The weights stay where they are: each is
        brought to the tokens as it is used.
        """
        projected = {}
        for block in self.config.layers:
            layer = cast(ImageProjection, self.layers[str(block)])
            projected[block] = (_linear(layer.to_k, tokens), _linear(layer.to_v, tokens))
        return projected


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return nn.functional.linear(x, layer.weight.to(device=x.device, dtype=x.dtype))


def check_fits(adapter: Adapter, layers: Layers, token_width: int) -> None:
    """Check that an adapter's projections fit a UNet's cross-attention.

    Args:
        layers: the UNet's, from `list_layers`.
        token_width: the width of the UNet's text context.

    Raises:
        ValueError: naming what differs.
    """
    own = adapter.config.layers
    if own == layers and adapter.config.mapper.token_width == token_width:
        return
    shared = own.keys() & layers.keys()
    wrong = [f"{b}: {own[b]} != {layers[b]}" for b in shared if own[b] != layers[b]]
    raise ValueError(
        f"The adapter '{adapter.name}' does not fit this model. "
        f"Adapter: {len(own)} cross-attention layers, {adapter.config.mapper.token_width} wide "
        f"tokens. Model: {len(layers)} layers, {token_width} wide context."
        + (f" Layer widths differ, {len(wrong)} in all, first {min(wrong)}." if wrong else "")
        + " SDXL has 70 layers and a 2048 wide context: use an SDXL checkpoint with an adapter "
        "trained for SDXL."
    )


@torch.inference_mode()
def encode(adapter: Adapter, face: Tensor, clip: Tensor) -> Tensor:
    """Identity tokens in float32, whatever the weights are stored in.

    Args:
        face: `(b, face_width)`; clip: `(b, l, clip_width)`; both on the CPU. What the adapter's
            recipe does not ask for is not read.

    Returns:
        `(b, tokens, token_width)` float32 on the CPU.
    """
    weights = {k: v.float() for k, v in adapter.mapper.state_dict().items()}
    return torch.func.functional_call(adapter.mapper, weights, (face.float(), clip.float()))

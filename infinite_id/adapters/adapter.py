"""The adapter: mappers and one pair of projections K', V' for each cross-attention layer."""

import weakref
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import cast

import torch
from torch import Tensor, nn

from ..attention.blocks import SDXL, Layers
from ..identities.projections import KeyValues, Projections
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
        self._shared: list[weakref.ref[Tensor]] = []
        self._projections: list[weakref.ref[Projections]] = []
        self.mapper = config.mapper.build()
        self.layers = nn.ModuleDict(
            {
                str(block): ImageProjection(config.mapper.token_width, width)
                for block, width in config.layers.items()
            }
        )

    def project(self, tokens: Tensor) -> KeyValues:
        """Project identity tokens `(b, l, token_width)` to K', V' `(b, l, width)` of every layer.

        The result has the tokens' device and dtype. The weights stay where they are: each is
        brought to the tokens as it is used.
        """
        projected = {}
        for block in self.config.layers:
            layer = cast(ImageProjection, self.layers[str(block)])
            projected[block] = (_linear(layer.to_k, tokens), _linear(layer.to_v, tokens))
        return projected

    def share(self, tokens: Tensor) -> Tensor:
        """Return an earlier tensor of the same values if it is still in use, else `tokens`.

        So the unconditional tokens of all people are one tensor, and their K', V' are made once.
        """
        known = [(ref, x) for ref in self._shared if (x := ref()) is not None]
        for _, x in known:
            if torch.equal(x, tokens):
                return x
        self._shared = [*(ref for ref, _ in known), weakref.ref(tokens)]
        return tokens

    def share_projections(self, tokens: Tensor) -> Projections:
        """Return K', V' of shared tokens. They are made once, and kept while they are in use."""
        known = [(ref, x) for ref in self._projections if (x := ref()) is not None]
        for _, x in known:
            if x.tokens is tokens:
                return x
        made = Projections(self.project, tokens)
        self._projections = [*(ref for ref, _ in known), weakref.ref(made)]
        return made

    def count_bytes(self, tokens: int) -> int:
        """Return the bytes of K' and V' of `tokens` tokens over all layers, in half precision."""
        return 2 * torch.float16.itemsize * tokens * sum(self.config.layers.values())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the weights' names, shapes, dtypes and bytes, hexadecimal; computed once.

        An adapter has the same fingerprint in files of any kind and name. The LoRA does not count,
        because it acts on the model. FaceID PlusV2's shortcut scale does not count, because it is a
        setting and tokens are projected alike at any scale. Training does not renew the value: it
        is computed from the weights at the first call.
        """
        whole = sha256()
        for name, x in sorted(self.state_dict().items()):
            whole.update(f"{name} {tuple(x.shape)} {x.dtype}\n".encode())
            whole.update(x.contiguous().flatten().view(torch.uint8).cpu().numpy())
        return whole.hexdigest()


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return nn.functional.linear(x, layer.weight.to(device=x.device, dtype=x.dtype))


FAMILIES = {
    (70, 2048): "SDXL",
    (44, 1280): "the SDXL refiner",
    (34, 2048): "SSD-1B",
    (30, 2048): "KOALA-1B",
    (21, 2048): "KOALA-700M",
    (15, 2048): "Segmind Vega",
    (16, 768): "SD 1.5",
    (16, 1024): "SD 2",
}
"""(cross-attention layers, context width): what users call such a model."""


def check_fits(adapter: Adapter, layers: Layers, token_width: int) -> None:
    """Check that an adapter's projections fit a UNet's cross-attention.

    Args:
        layers: the UNet's, from `list_layers`.
        token_width: the width of the UNet's text context.

    Raises:
        ValueError: naming both kinds of model, what differs, and what to load instead.
    """
    own, own_width = adapter.config.layers, adapter.config.mapper.token_width
    if own == layers and own_width == token_width:
        return
    shared = own.keys() & layers.keys()
    wrong = [f"{b}: {own[b]} != {layers[b]}" for b in shared if own[b] != layers[b]]
    trained_for = FAMILIES.get((len(own), own_width), "another kind of model")
    model = FAMILIES.get((len(layers), token_width), "an unknown kind")
    raise ValueError(
        f"The adapter '{adapter.name}' does not fit this model: it was trained for {trained_for}, "
        f"and this is {model}. "
        f"Adapter: {len(own)} cross-attention layers, {own_width} wide tokens. "
        f"Model: {len(layers)} layers, {token_width} wide context."
        + (f" Layer widths differ, {len(wrong)} in all, first {min(wrong)}." if wrong else "")
        + " Load the kind of model that the adapter was trained for, or an adapter trained for "
        "this kind; published ones are for SDXL (70 layers, 2048 wide context)."
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

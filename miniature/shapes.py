"""The miniature's sizes, each stated once. Nothing here needs the host."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
VOCABULARY_FILE = FOLDER / "vocabulary.json"
CLIP_VISION_FILE = FOLDER / "clip_vision.json"
WEIGHTS = FOLDER / "weights"

LATENT_CHANNELS = 4
HEAD_CHANNELS = 32
SIZE_EMBEDDING = 256  # per number; SDXL conditions on six: size, crop and target size
TOKENS = 40  # the longest caption has 39; SDXL's 77 would cost as much as the UNet


@dataclass(frozen=True)
class TextShape:
    width: int
    heads: int
    layers: int
    activation: str

    def config(self) -> dict[str, Any]:
        """Return the part of a CLIP text config that the host reads."""
        return {
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "intermediate_size": 4 * self.width,
            "hidden_act": self.activation,
            "max_position_embeddings": TOKENS,
            "eos_token_id": 2,
        }


# SDXL takes the penultimate layer, and the host insists on more than two for that.
TEXT_L = TextShape(width=32, heads=2, layers=3, activation="quick_gelu")
TEXT_G = TextShape(width=96, heads=4, layers=3, activation="gelu")
CONTEXT_WIDTH = TEXT_L.width + TEXT_G.width
ADM_WIDTH = TEXT_G.width + 6 * SIZE_EMBEDDING


@dataclass(frozen=True)
class UNetShape:
    channels: int
    mult: tuple[int, ...]
    depths: tuple[int, ...]  # transformer blocks per residual block, by level
    blocks: int = 2  # residual blocks per level, one more on the way up

    def config(self) -> dict[str, Any]:
        """Return what the host's detection reads from such a UNet's tensors."""
        return {
            "image_size": 32,
            "in_channels": LATENT_CHANNELS,
            "out_channels": LATENT_CHANNELS,
            "model_channels": self.channels,
            "num_res_blocks": [self.blocks] * len(self.mult),
            "channel_mult": list(self.mult),
            "transformer_depth": self._per_block(self.blocks),
            "transformer_depth_output": self._per_block(self.blocks + 1),
            "transformer_depth_middle": self.depths[-1],
            "use_linear_in_transformer": True,
            "use_spatial_transformer": True,
            "context_dim": CONTEXT_WIDTH,
            "num_classes": "sequential",
            "adm_in_channels": ADM_WIDTH,
            "num_head_channels": HEAD_CHANNELS,
            "legacy": False,
        }

    def _per_block(self, blocks: int) -> list[int]:
        return [depth for depth in self.depths for _ in range(blocks)]


UNETS = {
    "deep": UNetShape(channels=32, mult=(1, 2, 4), depths=(0, 2, 10)),  # SDXL's 70 layers
    # Groups of one channel would normalise a picture's colours away: the host's norms have 32.
    "tiny": UNetShape(channels=64, mult=(1, 1, 2), depths=(0, 1, 2), blocks=1),
    # Self-attention carries style, here at 16x16 and 8x8 tokens of a 256 px picture.
    "portrait": UNetShape(channels=64, mult=(1, 2, 2), depths=(0, 2, 4), blocks=1),
}


def clip_vision_config() -> dict[str, Any]:
    return json.loads(CLIP_VISION_FILE.read_text(encoding="utf-8"))

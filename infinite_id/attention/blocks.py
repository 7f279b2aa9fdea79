"""Addresses and widths of a UNet's transformer blocks, and a table of SDXL's 70."""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Block(NamedTuple):
    """The address of one transformer block, as ComfyUI names it in its patch tables."""

    stage: str  # "input", "middle" or "output"
    number: int  # which of the stage's blocks
    transformer: int  # which transformer inside that block

    def __str__(self) -> str:
        return f"{self.stage}_{self.number}_{self.transformer}"

    @classmethod
    def parse(cls, text: str) -> "Block":
        """Invert `str(block)`. Raises ValueError if the text is no block address."""
        stage, number, transformer = text.split("_")
        if stage not in ("input", "middle", "output"):
            raise ValueError(f"{text!r} is not a block address")
        return cls(stage, int(number), int(transformer))


Layers = dict[Block, int]
"""Width (attention channels) of every transformer block, in order of execution."""

_SDXL_DEPTHS = (
    # stage, block numbers, transformers in each, width
    ("input", (4, 5), 2, 640),
    ("input", (7, 8), 10, 1280),
    ("middle", (0,), 10, 1280),
    ("output", (0, 1, 2), 10, 1280),
    ("output", (3, 4, 5), 2, 640),
)

SDXL: Layers = {
    Block(stage, number, index): width
    for stage, numbers, depth, width in _SDXL_DEPTHS
    for number in numbers
    for index in range(depth)
}


def list_layers(unet: Any) -> Layers:
    """Read the transformer blocks off a UNet with `input_blocks`, `middle_block`, `output_blocks`.

    The width is the cross-attention's inner width, which K' and V' must share with q.
    Raises AttributeError for a network without these stages (it is no SD-style UNet).
    """
    return {block: t.attn2.to_q.out_features for block, t in list_transformers(unet)}


def context_width(unet: Any) -> int:
    """The width of the text tokens that a UNet's cross-attention reads; 0 if it has none."""
    return next((t.attn2.to_k.in_features for _, t in list_transformers(unet)), 0)


def list_transformers(unet: Any) -> Iterator[tuple[Block, Any]]:
    """Every transformer block with its address, in order of execution."""
    stages = {
        "input": unet.input_blocks,
        "middle": [unet.middle_block or ()],  # None in KOALA-700M
        "output": unet.output_blocks,
    }
    for stage, blocks in stages.items():
        for number, block in enumerate(blocks):
            for module in block:
                for index, transformer in enumerate(getattr(module, "transformer_blocks", ())):
                    yield Block(stage, number, index), transformer

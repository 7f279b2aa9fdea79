"""The LoRA that FaceID adapters were trained with, as an ordinary model LoRA."""

from dataclasses import dataclass

from torch import Tensor

from ..attention.blocks import Block


@dataclass(frozen=True, eq=False)
class FaceLoRA:
    """Low-rank weights of the UNet's attentions.

    `tensors[block, "attn1" or "attn2", "q", "k", "v" or "out", "down" or "up"]`: down is
    `(rank, in)`, up is `(out, rank)`; the layer's output gets `up @ down @ x` added.
    """

    tensors: dict[tuple[Block, str, str, str], Tensor]

    def to_state_dict(self) -> dict[str, Tensor]:
        """Return the tensors under the names by which ComfyUI loads a LoRA into its UNet."""
        layers = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out_0"}
        return {
            f"lora_unet_{_module(block)}_{attention}_{layers[projection]}.lora_{side}.weight": x
            for (block, attention, projection, side), x in self.tensors.items()
        }


def _module(block: Block) -> str:
    """The name of a transformer block inside the UNet, with underscores."""
    stage = {
        "input": f"input_blocks_{block.number}_1",
        "middle": "middle_block_1",
        "output": f"output_blocks_{block.number}_1",
    }[block.stage]
    return f"{stage}_transformer_blocks_{block.transformer}"

"""What a step of learning words takes at true size, counted as `training.host_count` does.

Not counted: the autoencoder, which a look at the likeness loads beside the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

import comfy.model_base
import comfy.supported_models
import torch
from comfy.model_base import BaseModel, ModelType
from comfy.sd import CLIP
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.text_encoders.sd2_clip import SD2ClipModel, SD2Tokenizer
from torch._subclasses.fake_tensor import FakeTensorMode

from ..count import PeakMemory
from ..training.host_count import UNET
from ..training.plan import CONTEXT, GB
from .host_text import make_differentiable
from .learner import PersonLearner

CARDS = (12, 16, 24)
"""Memory of usual cards, GiB."""
_FREE = 0.95
"""The share of it that learning may take; the screen has some."""
_SD: dict[str, Any] = {
    **{name: UNET[name] for name in ("image_size", "in_channels", "out_channels", "legacy")},
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "adm_in_channels": None,
}


@dataclass(frozen=True)
class Kind:
    """A kind of model, as ComfyUI describes it.

    Attributes:
        sides: of pictures that it is used for, in pixels.
        text: the host's classes of tokenizer and text encoders.
        text_options: for text encoders of other sizes.
    """

    sides: tuple[int, ...]
    unet: Mapping[str, Any]
    network: Any
    settings: Any
    prediction: ModelType
    text: tuple[Any, Any]
    text_options: Mapping[str, Any] = field(default_factory=dict)


KINDS = {
    "SDXL": Kind(
        (512, 1024),
        UNET,
        comfy.model_base.SDXL,
        comfy.supported_models.SDXL,
        ModelType.EPS,
        (SDXLTokenizer, SDXLClipModel),
    ),
    "SD 1.5": Kind(
        (512,),
        {
            **_SD,
            "use_linear_in_transformer": False,
            "context_dim": 768,
            "num_heads": 8,
            "num_head_channels": -1,
        },
        BaseModel,
        comfy.supported_models.SD15,
        ModelType.EPS,
        (SD1Tokenizer, SD1ClipModel),
    ),
    "SD 2.1": Kind(
        (512, 768),
        {
            **_SD,
            "use_linear_in_transformer": True,
            "context_dim": 1024,
            "num_heads": -1,
            "num_head_channels": 64,
        },
        BaseModel,
        comfy.supported_models.SD20,
        ModelType.V_PREDICTION,
        (SD2Tokenizer, SD2ClipModel),
    ),
}


class Make(Protocol):
    """Makes what learns, on a model and its text encoders, and a batch of one sample of zeros."""

    def __call__(
        self, model: BaseModel, clip: CLIP, side: int, twice: bool
    ) -> tuple[PersonLearner, Any]: ...


@dataclass(frozen=True)
class Counts:
    """Bytes of a step.

    Attributes:
        models: the frozen weights of UNet and text encoders.
        learner: what learns, with its average and AdamW's two moments.
        step: the most that a forward and its gradient make.
    """

    models: int
    learner: int
    step: int

    @property
    def total(self) -> float:
        """With what a card has besides: the driver and the allocator's gaps."""
        return self.models + self.learner + self.step + CONTEXT

    @property
    def card(self) -> str:
        """The smallest usual card that this fits on."""
        fitting = [size for size in CARDS if self.total <= _FREE * size * 2**30]
        return f"{fitting[0]} GB" if fitting else "none of them"


def count(make: Make, kind: Kind, side: int, twice: bool) -> Counts:
    """Count a step on tensors without storage.

    Args:
        twice: compute activations twice.
    """
    with FakeTensorMode():
        return count_step(make, kind, side, twice)


def count_step(make: Make, kind: Kind, side: int, twice: bool) -> Counts:
    """Count a step, on whatever tensors PyTorch makes. The model is bfloat16, the text float16."""
    model, clip = make_network(kind, torch.bfloat16), make_text(kind, torch.float16)
    make_differentiable(clip, twice)
    learner, batch = make(model, clip, side, twice)
    with PeakMemory() as memory:
        learner(batch).mean().backward()
    frozen = [*model.diffusion_model.parameters(), *clip.cond_stage_model.parameters()]
    return Counts(
        models=sum(x.nbytes for x in frozen),
        learner=4 * sum(x.nbytes for x in learner.parameters()),
        step=memory.peak,
    )


def make_network(kind: Kind, dtype: torch.dtype) -> BaseModel:
    """Make a model of this kind by the host; its weights have no values yet."""
    chosen = kind.settings({**kind.unet, "dtype": dtype})
    chosen.set_inference_dtype(dtype, None)
    model: BaseModel = kind.network(chosen, model_type=kind.prediction, device=torch.device("cpu"))
    return model


def make_text(kind: Kind, dtype: torch.dtype) -> CLIP:
    """Make text encoders of this kind by the host, without what loads models."""
    tokenizer, encoders = kind.text
    clip = CLIP(no_init=True)
    options = dict(kind.text_options)
    clip.cond_stage_model = encoders(dtype=dtype, model_options=options).requires_grad_(False)
    clip.tokenizer, clip.layer_idx, clip.tokenizer_options = tokenizer(), None, {}
    clip.patcher = SimpleNamespace(load_device=torch.device("cpu"))  # type: ignore[assignment]
    return clip


def plan(make: Make) -> str:
    """What learning takes for each kind of model and size, in a table."""
    cells: list[tuple[str, ...]] = [
        ("model", "pixels", "activations", "models", "words", "step", "in all", "card")
    ]
    for name, kind in KINDS.items():
        for side in kind.sides:
            for twice in (True, False):
                found = count(make, kind, side, twice)
                parts = (found.models, found.learner, found.step, found.total)
                sizes = [f"{x / GB:.1f} GB" for x in parts]
                kept = "twice" if twice else "kept"
                cells.append((name, str(side), kept, *sizes, found.card))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    ]
    return "\n".join(lines) + (
        "\n\nCounted on fake tensors: the model in bfloat16, the text encoders in float16.\n"
        f"'in all' has {CONTEXT / GB:.1f} GB for the driver and gaps, a usual figure; "
        f"{_FREE:.0%} of a card may be\ntaken. 'twice' is gradient checkpointing.\n"
    )

"""Applying an identity to a model."""

from typing import Any

import torch
from comfy_api.latest import io

from ..infinite_id.application import Application, Curve, Levels
from ..infinite_id.attention.mixed import Mixing, Style
from ..infinite_id.host.patch import apply
from ..infinite_id.identities.identity import Identity
from ..infinite_id.layer_weights import read_layer_weights
from . import sockets
from .mask import check_mask
from .node import Node

_LEVELS = {
    "down_weight": "on the way down",
    "middle_weight": "in the middle",
    "up_weight": "on the way up",
}


class ApplyInfiniteID(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDApply",
            display_name="Apply Infinite-ID",
            category=sockets.CATEGORY,
            description="Makes an SDXL model draw this person. The prompt alone is drawn beside "
            "it in a second stream, and the person's picture reads from that one, so the "
            "prompt keeps its say; this doubles the work of each step.",
            search_aliases=["infinite id", "face id", "identity", "consistent character"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL model, patched by other nodes or not."),
                sockets.Identity.Input("identity", tooltip="From Encode Identity."),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Strength of the identity: 1 is the paper's, 0 leaves the model as is.",
                ),
                io.Combo.Input(
                    "style",
                    options=[style.value for style in Style],
                    default=Style.PHOTO.value,
                    tooltip="'photo' for photographs. 'style (AdaIN-mean)' when the prompt asks "
                    "for a style, such as an oil painting: the text's picture then sets the "
                    "style. 'style (full AdaIN)' styles more and loses likeness; for comparison.",
                ),
                io.Combo.Input(
                    "mixed_attention",
                    options=[mixing.value for mixing in Mixing],
                    default=Mixing.MIXED.value,
                    tooltip="'mixed': the person's picture reads the prompt's picture beside "
                    "itself (the paper's method). 'mutual': it reads the prompt's picture "
                    "instead of itself. 'off': it does not read it; with style 'photo' this "
                    "needs no second stream and costs next to nothing.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="When in the sampling the identity begins to act (0: at the start).",
                    advanced=True,
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="When in the sampling the identity ceases to act (1: at the end).",
                    advanced=True,
                ),
                io.Boolean.Input(
                    "style_in_cross_attention",
                    default=False,
                    tooltip="Adapt the identity's own keys and values to the text's as well. "
                    "Stronger style, weaker likeness. No effect with style 'photo'.",
                    advanced=True,
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where in the picture the person is; elsewhere the identity adds "
                    "nothing. Any resolution. Without it: everywhere.",
                ),
                io.Combo.Input(
                    "weight_curve",
                    options=[curve.value for curve in Curve],
                    default=Curve.CONSTANT.value,
                    tooltip="How the weight goes from start_percent to end_percent.",
                    optional=True,
                    advanced=True,
                ),
                *(_level(name, stage) for name, stage in _LEVELS.items()),
                sockets.Identity.Input(
                    "negative",
                    optional=True,
                    tooltip="A photo's identity whose look is steered away from: the negative "
                    "prompt reads it, in the place of no identity. From another Encode Identity "
                    "with the same adapter. Without guidance (cfg 1) it does nothing.",
                ),
                io.String.Input(
                    "layer_weights",
                    default="",
                    optional=True,
                    tooltip="Further factors on the weight in single layers: names with numbers, "
                    "such as 'down2: 0.5, up1: 0', or one number for each layer in order; SDXL has "
                    "11: down1 to down4, middle, up1 to up6. Empty: 1 everywhere.",
                    advanced=True,
                ),
            ],
            outputs=[
                io.Model.Output(
                    "patched", display_name="model", tooltip="For any sampler or guider."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        identity: Identity,
        weight: float,
        style: str,
        mixed_attention: str,
        start_percent: float,
        end_percent: float,
        style_in_cross_attention: bool,
        mask: torch.Tensor | None = None,
        weight_curve: str = Curve.CONSTANT.value,
        down_weight: float = 1.0,
        middle_weight: float = 1.0,
        up_weight: float = 1.0,
        negative: Identity | None = None,
        layer_weights: str = "",
    ) -> io.NodeOutput:
        if not start_percent < end_percent:
            raise ValueError(
                f"Apply Infinite-ID: start_percent ({start_percent}) must be below end_percent "
                f"({end_percent}), or the identity never acts."
            )
        if weight == 0:
            return io.NodeOutput(model)
        _check_tokens(identity)
        if negative is not None:
            _check_negative(negative, identity)
        application = Application(
            identity=identity,
            weight=weight,
            mixing=Mixing(mixed_attention),
            style=Style(style),
            style_in_cross_attention=style_in_cross_attention,
            start=start_percent,
            end=end_percent,
            curve=Curve(weight_curve),
            levels=Levels(down_weight, middle_weight, up_weight),
            mask=None if mask is None else check_mask("Apply Infinite-ID", mask),
            places=read_layer_weights(layer_weights, identity.adapter.config.layers),
            negative=negative,
        )
        return io.NodeOutput(apply(model, application))


def _level(name: str, stage: str) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=1.0,
        min=0.0,
        max=3.0,
        step=0.05,
        tooltip=f"Factor on the weight in the UNet's layers {stage}.",
        optional=True,
        advanced=True,
    )


def _check_tokens(identity: Identity) -> None:
    """Refuse tokens and shares that would make the whole picture NaN.

    Raises:
        ValueError: if the identity's tokens or shares hold NaN or infinite values.
    """
    values = (identity.tokens, identity.unconditional, identity.shares)
    if not all(torch.isfinite(x).all() for x in values if x is not None):
        made_of = ", ".join(source.label for source in identity.sources) or "no photo"
        raise ValueError(
            "Apply Infinite-ID: the identity holds values that are not numbers (NaN), so the whole "
            f"picture would be none; it was made of: {made_of}. Its photo, the adapter file or the "
            "CLIP vision model is damaged, or the latter overflows in float16: encode again with "
            "other ones."
        )


def _check_negative(negative: Identity, identity: Identity) -> None:
    """Refuse a negative whose tokens cannot stand where those of no identity do.

    Raises:
        ValueError: if its adapter, its number of tokens or their values do not fit.
    """
    if negative.adapter is not identity.adapter:
        raise ValueError(
            "Apply Infinite-ID: 'negative' was encoded with the adapter "
            f"'{negative.adapter.name}', and 'identity' with '{identity.adapter.name}'. Encode "
            "both with one loader's adapter."
        )
    if negative.tokens.shape != identity.unconditional.shape:
        raise ValueError(
            "Apply Infinite-ID: 'negative' is a stack of photos or a sweep. Encode one photo, or "
            "set combine to 'average'."
        )
    _check_tokens(negative)

"""The host's UNet as the trainer sees it: noise prediction with gradients to K' and V'."""

from collections.abc import Callable

from comfy.model_base import BaseModel
from torch import Tensor

from ..attention.blocks import context_width
from ..identities.projections import KeyValues
from .attend import Replacement, make_attend
from .forward import Options

Predict = Callable[[Tensor, Tensor, KeyValues], Tensor]
"""`(z_t (b, c, h, w), t (b,) long, K' and V' per block) -> the model's output (b, c, h, w)`."""


def make_predict(model: BaseModel, y: Tensor, context: Tensor | None = None) -> Predict:
    """Return the UNet's prediction as a function of noised latents, t, and K', V'.

    Args:
        y: `(1, adm)` or `(b, adm)`: pooled text (zeros without a prompt) and size conditioning.
        context: `(b, l, context_width)` text tokens. Text and image attention are then added, as in
            IP-Adapter. None: the text attention is inactive, as in identity-enhanced training.
    """
    unet = model.diffusion_model

    def predict(noised: Tensor, t: Tensor, key_values: KeyValues) -> Tensor:
        rows = len(noised)
        hooks = {
            block: make_image_attention(k, v, add_text=context is not None)
            for block, (k, v) in key_values.items()
        }
        unread = noised.new_zeros(rows, 1, context_width(unet))
        return unet(
            noised,
            t,
            context=unread if context is None else context,
            y=y.expand(rows, -1),
            transformer_options={"patches_replace": {"attn2": hooks}},
        )

    return predict


def make_image_attention(k_id: Tensor, v_id: Tensor, add_text: bool) -> Replacement:
    """An `attn2` replacement: image attention alone, or added to the text's.

    Args:
        k_id, v_id: `(rows, tokens, width)`.
    """

    def attn2(q: Tensor, k: Tensor, v: Tensor, options: Options) -> Tensor:
        attend = make_attend(options)
        image = attend(q, k_id, v_id)
        return image + attend(q, k, v) if add_text else image

    return attn2

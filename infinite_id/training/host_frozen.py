"""The frozen diffusion model: ComfyUI's model in the form that the objective needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from comfy.model_base import BaseModel
from comfy.model_sampling import EPS, V_PREDICTION, ModelSamplingDiscrete
from comfy.sd import CLIP
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..attention.blocks import list_transformers
from ..errors import UserError
from ..host.training import make_predict
from ..identities.projections import KeyValues
from .objective import Prediction

_PREDICTIONS = {
    EPS.calculate_denoised: Prediction.NOISE,
    V_PREDICTION.calculate_denoised: Prediction.VELOCITY,
}

_TOKENS = 77
"""The tokens of a prompt of ordinary length."""


def read_prediction(sampling: Any) -> Prediction | None:
    """Return what a model predicts by its `model_sampling`, which another node may have replaced.

    None if that is neither noise nor velocity, or if timesteps are no indices of its sigmas.
    """
    kind: Any = type(sampling)
    if getattr(kind, "timestep", None) is not ModelSamplingDiscrete.timestep:
        return None
    return _PREDICTIONS.get(kind.calculate_denoised)


def name_sampling(sampling: Any) -> str:
    """Return the names of the classes of a model's `model_sampling`, for the user."""
    bases = [base.__name__ for base in type(sampling).__bases__]
    return " and ".join(bases)


class HostFrozen:
    """Implements `objective.Frozen` by ComfyUI's model."""

    def __init__(self, model: BaseModel, checkpointing: bool, text: CLIP | None = None) -> None:
        """
        Args:
            model: on the device and in the dtype in which it is to run; it is changed.
            text: the text encoders, if the text attention is to be active.

        Raises:
            UserError: if it is no SDXL-like UNet that predicts noise or velocity.
        """
        sampling: Any = model.model_sampling
        prediction = read_prediction(sampling)
        if prediction is None or not hasattr(model, "embedder"):
            raise UserError(
                "Identities are trained for SDXL and its relatives, which predict noise or "
                f"velocity, and this model is a {type(model).__name__} that samples by "
                f"{name_sampling(sampling)}. Connect such a model; take nodes out that change its "
                "sampling, such as ModelSamplingDiscrete with 'lcm'."
            )
        self._model = model.requires_grad_(False).eval()
        self.unet: Any = model.diffusion_model
        weight = next(self.unet.parameters())
        self.dtype = weight.dtype
        self.prediction = prediction
        self.alphas_cumprod = (1 / (1 + sampling.sigmas.square())).to(weight.device)
        self._embedder: Any = model.embedder
        self._text = None if text is None else _Captions(text)
        if checkpointing:
            compute_twice(self.unet)

    def scale(self, latents: Tensor) -> Tensor:
        return self._model.process_latent_in(latents)

    def predict(
        self,
        noised: Tensor,
        t: Tensor,
        key_values: KeyValues,
        sizes: Tensor,
        captions: Sequence[str],
    ) -> Tensor:
        """As `objective.Frozen`."""
        context, pooled = (None, None) if self._text is None else self._text.encode(captions)
        y = self.condition(sizes, pooled).to(self.dtype)
        if context is not None:
            context = context.to(noised.device, self.dtype)
        predict = make_predict(self._model, y, context)
        return predict(noised.to(self.dtype), t.float(), key_values)

    def condition(self, sizes: Tensor, pooled: Tensor | None = None) -> Tensor:
        """SDXL's vector `(b, adm)`: the pooled prompt, or zeros, and embedded sizes `(b, 6)`."""
        embedded = self._embedder(sizes.flatten().float()).reshape(len(sizes), -1)
        if pooled is None:
            pooled = embedded.new_zeros(len(sizes), self._model.adm_channels - embedded.shape[1])
        return torch.cat([pooled.to(embedded), embedded], dim=1)


class _Captions:
    """Encoded captions. The last thousand are kept and not encoded again."""

    def __init__(self, text: CLIP) -> None:
        self._text = text
        self._one = lru_cache(1000)(self._encode)

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the context `(b, 77, width)`, cut off after 77 tokens, and the pooled vectors."""
        contexts, pooled = zip(*(self._one(caption) for caption in captions), strict=True)
        return torch.cat(contexts), torch.cat(pooled)

    @torch.no_grad()
    def _encode(self, caption: str) -> tuple[Tensor, Tensor]:
        tokens = self._text.tokenize(caption)
        context, pooled = self._text.encode_from_tokens(tokens, return_pooled=True)
        return context[:, :_TOKENS], pooled


def compute_twice(unet: Any) -> None:
    """Keep no activations inside transformer blocks; compute them again for the gradient.

    The blocks' `forward` is replaced on this very model.
    """
    for _, block in list_transformers(unet):
        _compute_twice(block)


def _compute_twice(block: Any) -> None:
    forward = block.forward

    def twice(x: Tensor, context: Any = None, transformer_options: Any = None) -> Any:
        # ComfyUI writes the current block into a dictionary that the whole forward shares. When a
        # block is computed again, it would name the last block.
        options = dict(transformer_options or {})

        def run(x: Tensor, context: Any) -> Any:
            return forward(x, context=context, transformer_options=options)

        return checkpoint(run, x, context, use_reentrant=False, preserve_rng_state=False)

    block.forward = twice

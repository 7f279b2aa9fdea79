"""The frozen diffusion model and its text encoders as ComfyUI has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from torch import Tensor

from ..attention.blocks import context_width
from ..training.host_frozen import compute_twice, name_sampling, read_prediction
from .files import Rows
from .host_text import ClipError, Prompts, list_encoders, read_table


def check_model(model: ModelPatcher, clip: CLIP | None) -> None:
    """Raise ClipError if words cannot be learnt for this model, or not with this CLIP."""
    if clip is None:
        raise ClipError(
            "There is no CLIP at this node's 'clip': the file that it comes from holds none. Take "
            "Load CLIP, or a whole checkpoint."
        )
    if clip.patcher.forced_hooks is not None:
        raise ClipError(
            "Words are learnt without hooks, and this CLIP has some. Connect it from before Set "
            "CLIP Hooks; a prompt that names the person may take the CLIP with them."
        )
    network = model.model
    kind, unet = type(network).__name__, network.diffusion_model
    sampling = model.get_model_object("model_sampling")
    if read_prediction(sampling) is None or not hasattr(unet, "input_blocks"):
        raise ClipError(
            f"Words are learnt with SD 1.5, SD 2.1 and SDXL, which predict noise or velocity, and "
            f"this model is a {kind} that samples by {name_sampling(sampling)}. Connect such a "
            "model, without nodes that change its sampling; the words then work with others that "
            "share its CLIP."
        )
    channels = network.latent_format.latent_channels
    if unet.in_channels != channels:
        raise ClipError(
            f"This model's input has {unet.in_channels} channels (for inpainting or editing), and "
            f"latents have {channels}. Connect the model that it was made of."
        )
    widths = {k: read_table(encoder).shape[1] for k, encoder in list_encoders(clip).items()}
    if sum(widths.values()) != context_width(unet):
        listed = ", ".join(f"{key} {width}" for key, width in widths.items())
        raise ClipError(
            f"The model reads text {context_width(unet)} wide, and this CLIP gives {listed}. "
            "Connect model and CLIP of the same checkpoint."
        )


class HostFrozen:
    """ComfyUI's model for learners; see `Frozen` in `stable_identity.learner`."""

    def __init__(self, model: BaseModel, prompts: Prompts, side: int, twice: bool) -> None:
        """
        Args:
            model: on the device and in the dtype of the run; it is changed.
            side: of the targets in pixels, for models that are conditioned on sizes.
            twice: compute activations twice.
        """
        self._model: Any = model.requires_grad_(False).eval()
        self._prompts, self._side = prompts, side
        self.unet: Any = model.diffusion_model
        weight = next(self.unet.parameters())
        self._dtype, self._device = weight.dtype, weight.device
        sampling: Any = model.model_sampling
        prediction = read_prediction(sampling)
        assert prediction is not None  # by check_model
        self.prediction = prediction
        self.alphas_cumprod = (1 / (1 + sampling.sigmas.square())).to(weight.device)
        if twice:
            compute_twice(self.unet)

    def scale(self, latents: Tensor) -> Tensor:
        scaled: Tensor = self._model.process_latent_in(latents)
        return scaled

    def predict(
        self, noised: Tensor, times: Tensor, rows: Rows | None, prompts: Sequence[str]
    ) -> Tensor:
        """Return the prediction `(b, c, h, w)`, float32, with gradients to the words' rows."""
        context, pooled = zip(
            *(
                self._prompts.encode(
                    prompt, None if rows is None else {k: x[n] for k, x in rows.items()}
                )
                for n, prompt in enumerate(prompts)
            ),
            strict=True,
        )
        return self.run(noised, times, torch.cat(context), torch.cat(pooled), {})

    def run(
        self,
        noised: Tensor,
        times: Tensor,
        context: Tensor,
        pooled: Tensor,
        options: dict[str, Any],
    ) -> Tensor:
        """Return the UNet's prediction `(b, c, h, w)` in float32.

        Args:
            context: `(b, l, width)` in any dtype.
            options: the host's transformer options.
        """
        output: Tensor = self.unet(
            noised.to(self._dtype),
            times.float(),
            context=self.cast(context),
            y=self._condition(pooled),
            transformer_options=options,
        )
        return output.float()

    def cast(self, x: Tensor) -> Tensor:
        """Return a tensor on the model's device and in its dtype."""
        return x.to(self._device, self._dtype)

    def _condition(self, pooled: Tensor) -> Tensor | None:
        """Return the conditioning beside the context; None for SD 1.5 and 2.1."""
        sizes = {"width": self._side, "height": self._side}
        y = self._model.encode_adm(pooled_output=pooled, device=self._device, **sizes)
        return None if y is None else y.to(self._device, self._dtype)

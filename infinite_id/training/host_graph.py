"""Training inside a graph: the server's memory, progress, previews and interruption."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import comfy.utils
import latent_preview
import torch
from comfy import model_management
from comfy.model_base import BaseModel
from comfy.model_management import InterruptProcessingException
from comfy.model_patcher import ModelPatcher
from server import PromptServer
from torch import Tensor

from ..attention.blocks import list_transformers
from ..host.models import place_model
from .loop import Loop

PREVIEW_EVERY = 10
"""Steps between previews: each is a forward more."""


@contextmanager
def training() -> Iterator[None]:
    """Gradients inside a node, which the host runs in inference mode; and the host is told."""
    before = getattr(model_management, "in_training", False)
    model_management.in_training = True
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        model_management.in_training = before


def load_for_training(model: ModelPatcher) -> ModelPatcher:
    """A copy of a model in whole on its device, with its patches, all other models put away.

    Its weights were made in inference mode, which PyTorch keeps out of gradients: the copy's are
    ordinary. It runs in bfloat16 where the device can, else in float32; half precision would lose
    small gradients.
    """
    model_management.unload_all_models()
    device = model.load_device
    dtype = torch.bfloat16 if model_management.should_use_bf16(device) else torch.float32
    network = place_model(_copy_model(model.model), model.offload_device, dtype)
    patcher = ModelPatcher(network, load_device=device, offload_device=model.offload_device)
    patcher.patches = {name: list(patches) for name, patches in model.patches.items()}
    patcher.object_patches = dict(model.object_patches)
    model_management.load_models_gpu([patcher], memory_required=1e20, force_full_load=True)
    return patcher


def _copy_model(model: BaseModel) -> BaseModel:
    """The model with a UNet of its own."""
    own = copy.copy(model)
    own._modules = {**model._modules, "diffusion_model": copy.deepcopy(model.diffusion_model)}
    own.current_patcher = None
    return own


def digest_model(model: ModelPatcher) -> str:
    """SHA-256 that tells models apart: of the text projections, and of which patches there are."""
    whole = sha256(str(sorted((name, len(own)) for name, own in model.patches.items())).encode())
    for _, transformer in list_transformers(model.model.diffusion_model):
        for layer in (transformer.attn2.to_k, transformer.attn2.to_v):
            whole.update(layer.weight.detach().cpu().flatten().view(torch.uint8).numpy())
    return whole.hexdigest()


class GraphWatch:
    """Shows a run on its node, and hears the user's interruption."""

    def __init__(
        self, steps: int, begun: int, node: str, device: torch.device, latent_format: Any
    ) -> None:
        """
        Args:
            begun: the steps that were done before.
            node: the node's id.
        """
        self._steps, self._begun, self._node = steps, begun, node
        self._bar = comfy.utils.ProgressBar(steps, node_id=node)
        self._previewer = latent_preview.get_previewer(device, latent_format)
        self._interrupted = False
        self._since = time.monotonic()
        self.show: Callable[[], Tensor] | None = None
        """Gives latents to preview."""

    def stop(self) -> bool:
        return self._interrupted or bool(model_management.processing_interrupted())

    def note(self, step: int, loss: float) -> None:
        preview = None
        if self._previewer and self.show and step % PREVIEW_EVERY == 0:
            preview = self._previewer.decode_latent_to_preview_image("JPEG", self.show())
        left = (time.monotonic() - self._since) / (step - self._begun) * (self._steps - step)
        text = f"step {step} of {self._steps}, loss {loss:.4f}, {_describe_time(left)} left"
        PromptServer.instance.send_progress_text(text, self._node)
        try:
            self._bar.update_absolute(step, self._steps, preview)
        except InterruptProcessingException:  # the run saves first
            self._interrupted = True
        if model_management.processing_interrupted():  # the bar is not shown at every step
            self._interrupted = True
            model_management.interrupt_current_processing(False)

    def leave(self) -> None:
        """Raise the host's exception if the user has interrupted."""
        if self._interrupted:
            raise InterruptProcessingException
        model_management.throw_exception_if_processing_interrupted()


def train_interruptibly(loop: Loop, watch: GraphWatch) -> None:
    """Train; a user's interruption saves the last whole step, and is raised again.

    Raises:
        InterruptProcessingException: as the host's own layers do within a step, too.
    """
    try:
        loop.train(watch)
    except InterruptProcessingException:
        loop.save()
        raise
    watch.leave()


def _describe_time(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 1 else "< 1 min"

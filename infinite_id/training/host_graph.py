"""Training inside a graph: progress, previews and interruption."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import comfy.utils
import latent_preview
import torch
from comfy import model_management
from comfy.model_management import InterruptProcessingException
from comfy.model_patcher import ModelPatcher
from server import PromptServer
from torch import Tensor

from .host_follow import Follow, Tell
from .loop import Loop

PREVIEW_EVERY = 10
"""Steps between previews by default. Each preview costs one more forward."""


class GraphWatch:
    """Shows a run on its node, and hears the user's interruption."""

    def __init__(
        self,
        steps: int,
        begun: int,
        node: str,
        device: torch.device,
        latent_format: Any,
        preview_every: int = PREVIEW_EVERY,
    ) -> None:
        """
        Args:
            begun: the steps that were done before.
            node: the node's id.
            preview_every: steps between previews; 0: none.
        """
        self._preview_every = preview_every
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
        """Show a step that was done, its loss, the time left, and at times a preview."""
        preview = None
        every = self._preview_every
        if self._previewer and self.show and every and step % every == 0:
            preview = self._previewer.decode_latent_to_preview_image("JPEG", self.show())
        left = (time.monotonic() - self._since) / (step - self._begun) * (self._steps - step)
        text = f"step {step} of {self._steps}, loss {loss:.4f}, {_describe_time(left)} left"
        server: Any = PromptServer  # which learns of its instance as it starts
        server.instance.send_progress_text(text, self._node)
        try:
            self._bar.update_absolute(step, self._steps, preview)
        except InterruptProcessingException:  # the run saves first
            self._interrupted = True
        if model_management.processing_interrupted():  # the bar is not shown at every step
            self._interrupted = True
            model_management.interrupt_current_processing(False)

    def leave(self) -> None:
        """Raises InterruptProcessingException if the user has interrupted."""
        if self._interrupted:
            raise InterruptProcessingException
        model_management.throw_exception_if_processing_interrupted()


def train_interruptibly(loop: Loop, watch: GraphWatch) -> None:
    """Train. If the user interrupts, save the last whole step and raise.

    Raises:
        InterruptProcessingException: if the user interrupts; within a step the host raises it.
    """
    try:
        loop.train(watch)
    except InterruptProcessingException:
        loop.save()
        raise
    watch.leave()


def make_follow(node: str, preview_every: int) -> Follow:
    """Return a function that follows a run on a node: progress, previews, interruption."""

    def follow(loop: Loop, begun: int, patcher: ModelPatcher, show: Callable[[], Tensor]) -> bool:
        model = patcher.model
        steps, device = loop.settings.run.steps, patcher.load_device
        watch = GraphWatch(steps, begun, node, device, model.latent_format, preview_every)
        watch.show = show
        try:
            train_interruptibly(loop, watch)
        except InterruptProcessingException:
            return False
        return True

    return follow


def make_tell(node: str) -> Tell:
    """Return a function that shows on a node how many photos are encoded."""

    def tell(done: int, count: int) -> None:
        comfy.utils.ProgressBar(count, node_id=node).update_absolute(done, count)

    return tell


def _describe_time(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 1 else "< 1 min"

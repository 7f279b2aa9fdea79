"""Shows a run on its node in a graph."""

from __future__ import annotations

from collections.abc import Callable

import comfy.utils
from comfy.model_management import InterruptProcessingException
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..training.host_graph import GraphWatch, train_interruptibly
from ..training.loop import Loop
from .host_follow import Follow, Tell


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

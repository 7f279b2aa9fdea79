"""The functions that report on a run while it learns."""

from collections.abc import Callable

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .loop import Loop
from .watch import watch_signals

Tell = Callable[[int, int], None]
"""Called while photos are encoded, with the number done and the number of all."""
Follow = Callable[[Loop, int, ModelPatcher, Callable[[], Tensor]], bool]
"""Trains a run that has begun, and shows it. Returns False if the run was interrupted.

Its arguments are the run, its step, the model, and a function that returns latents to preview.
"""


def follow_signals(
    loop: Loop, begun: int, patcher: ModelPatcher, show: Callable[[], Tensor]
) -> bool:
    """Train a run to its end in a process of its own; Ctrl-C ends it with its state kept."""
    del begun, patcher, show
    with watch_signals() as watch:
        return loop.train(watch) or loop.is_settled

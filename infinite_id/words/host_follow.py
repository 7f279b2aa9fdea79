"""Who is told of a run while it learns."""

from collections.abc import Callable

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..training.loop import Loop

Tell = Callable[[int, int], None]
"""Is told of photos that are encoded: how many are done, and of how many."""
Follow = Callable[[Loop, int, ModelPatcher, Callable[[], Tensor]], bool]
"""Trains a run that has begun, and shows it; whether it was not interrupted.

It is given the run, its step, the model, and what gives latents to preview.
"""

"""Asks the host about a device's memory and pins memory through it."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from comfy import model_management
from comfy.model_management import VRAMState
from comfy.model_patcher import ModelPatcher
from torch import Tensor

_SHORT = (VRAMState.LOW_VRAM, VRAMState.NO_VRAM)


@dataclass(frozen=True)
class HostMemory:
    """The memory that is left beside a model in use; see `identity.Memory`."""

    patcher: ModelPatcher

    def has_room(self, device: torch.device, size: int) -> bool:
        """Whether `size` bytes fit beside the whole model and the host's reserve for sampling.

        The device's total size counts: models that fill it now can be unloaded.
        """
        if model_management.is_device_cpu(device):
            return True
        if model_management.vram_state in _SHORT:
            return False
        needed = self.patcher.model_size() + model_management.minimum_inference_memory() + size
        return bool(model_management.get_total_memory(device) >= needed)

    def pin(self, tensors: Sequence[Tensor], owner: object) -> None:
        """Pin CPU tensors until their owner is gone, if the host allows it."""
        pinned = [x for x in tensors if model_management.pin_memory(x)]
        if pinned:
            weakref.finalize(owner, _unpin, pinned).atexit = False


def _unpin(tensors: Sequence[Tensor]) -> None:
    for x in tensors:
        model_management.unpin_memory(x)

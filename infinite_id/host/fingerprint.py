"""Turns what the model is given into keys: two keys are equal only if all values are.

Tensors are compared by their bits. Models, and functions of the host, are compared as objects, and
held weakly. Of anything else nobody knows whether it is the same as before, so it is refused.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping
from enum import Enum
from hashlib import blake2b
from types import FunctionType
from typing import Any
from uuid import UUID

import torch
from comfy.conds import CONDRegular
from comfy.controlnet import ControlBase, ControlLora
from comfy.hooks import HookGroup, WeightHook
from comfy.latent_formats import LatentFormat
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor
from torch.nn import Module
from torch.utils.weak import WeakTensorKeyDictionary

PLAIN = (type(None), bool, int, float, str, bytes, Enum, UUID, torch.dtype, torch.device)
HOST = ("comfy.", "comfy_extras.")

# What a control makes of its other attributes while it runs.
_DERIVED = {
    *("cond_hint", "extra_concat", "timestep_range", "control_input", "model_sampling_current"),
    "multigpu_clones",
}


class IncomparableError(Exception):
    """Something that the text stream may depend on cannot be compared; the message names it."""


class Fingerprint:
    """Makes keys for the values of one sampling run. Each tensor is read once."""

    def __init__(self) -> None:
        self._digests: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def of(self, x: Any) -> Hashable:
        """Return a key for a value.

        Raises:
            IncomparableError: if it holds something that cannot be compared.
        """
        if isinstance(x, PLAIN):
            return type(x), x
        if isinstance(x, Mapping):
            return frozenset((self.of(name), self.of(value)) for name, value in x.items())
        if isinstance(x, list | tuple):
            return tuple(map(self.of, x))
        if isinstance(x, Tensor):
            return self._of_tensor(x)
        return self._of_cond(x)

    def _of_cond(self, x: Any) -> Hashable:
        """Of what conds hold; the strength of hooks is left out, since it changes at each step."""
        if isinstance(x, CONDRegular):
            return type(x), self.of(x.cond)
        if isinstance(x, ControlBase) and type(x).__module__ == "comfy.controlnet":
            derived = _DERIVED | ({"control_model"} if isinstance(x, ControlLora) else set())
            own = {name: value for name, value in vars(x).items() if name not in derived}
            return type(x), self.of(own)
        if isinstance(x, HookGroup):
            return self.of(x.hooks)
        if type(x) is WeightHook:
            return weakref.ref(x.hook_ref), x._strength_model
        return _of_object(x)

    def _of_tensor(self, x: Tensor) -> Hashable:
        if x not in self._digests:
            self._digests[x] = digest(x)
        return tuple(x.shape), x.dtype, self._digests[x]


def digest(x: Tensor) -> bytes:
    """The digest of a tensor's bits."""
    flat = torch.empty(x.numel(), dtype=x.dtype).copy_(x.detach().flatten())
    return blake2b(flat.view(torch.uint8).numpy().tobytes(), digest_size=16).digest()


def _of_object(x: Any) -> Hashable:
    if isinstance(x, ModelPatcher):
        return weakref.ref(x.model), x.patches_uuid
    if isinstance(x, LatentFormat):
        return type(x).__module__, type(x).__qualname__
    if isinstance(x, FunctionType) and x.__module__.startswith(HOST):
        return weakref.ref(x) if x.__closure__ or x.__defaults__ else x.__code__
    if isinstance(x, Module | VAE):
        return weakref.ref(x)
    module = getattr(x, "__module__", type(x).__module__)
    name = getattr(x, "__qualname__", type(x).__qualname__)
    raise IncomparableError(f"another node ({module}.{name})")

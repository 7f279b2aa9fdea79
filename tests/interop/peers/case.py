"""A peer's node, as `combine_peers` puts it together with the pack."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.host.patch import save_time
from pack.infinite_id.savings import Savings
from pack.tests.host.world import World, guider, sample_custom
from torch import Tensor

Patch = Callable[[ModelPatcher], ModelPatcher]
SAME = 1e-4
"""Relative differences below it are rounding."""
NEAR = 0.1
"""Those below it are within what savings cost."""


@dataclass(frozen=True)
class Case:
    """A node as a patch on a model, as a sampler, or, for ControlNets, on the prompts.

    Attributes:
        how: to sample.
        sampler: the node's own; None for the host's.
        savings: what Infinite-ID Save Time leaves out.
        mask: the person's.
        is_cut: whether it draws the last quarter of the columns by themselves, away from the mask.
        is_idle: whether the node changes nothing as it is used here.
        is_cache: whether it leaves out forwards, so that a picture with it is near one without.
    """

    node: str
    world: World
    patch: Patch = lambda model: model
    how: dict[str, Any] = field(default_factory=dict)
    sampler: Any = None
    savings: Savings = field(default_factory=Savings)
    mask: Tensor | None = None
    is_cut: bool = False
    is_idle: bool = False
    is_cache: bool = False

    @property
    def tolerance(self) -> float:
        """What "weight 0" may be: savings are not exact, but for shared latents."""
        is_exact = replace(self.savings, shared=False) == Savings()
        return SAME if is_exact else NEAR

    def draw(self, model: ModelPatcher) -> Tensor:
        torch.manual_seed(0)
        how = {"steps": 2, **self.how}
        if self.sampler is None:
            return self.world.sample(model, **how)
        guide = guider(model, self.world.positive, self.world.negative)
        return sample_custom(guide, sampler=self.sampler, **how)[0]

    def put_on(self, model: ModelPatcher, weight: float, setting: str) -> ModelPatcher:
        """The model with the person."""
        world = replace(self.world, model=save_time(model, self.savings))
        return world.patch(weight, setting, mask=self.mask)


def part(peer: ModuleType, name: str) -> Any:
    """A module of a pack by the end of its name."""
    return next(
        m for n, m in sys.modules.items() if n.startswith(peer.__name__) and n.endswith(name)
    )


def halves() -> tuple[Tensor, Tensor]:
    """Masks of the left and the right half of a picture."""
    left = torch.zeros(1, 128, 128)
    left[..., :64] = 1
    return left, 1 - left

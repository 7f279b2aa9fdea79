"""All of the UNet runs when its deep features have changed, not by a clock."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.host.patch import save_time
from pack.infinite_id.savings import Savings
from pack.tests.host.test_deep import (
    DAILY_SAMPLERS,
    FULL,
    SHALLOW,
    find_changes,
    note_memory,
    watch_levels,
)
from pack.tests.host.test_exactness import ROUNDING, SCHEDULERS, SMALL, TOLERANCES
from pack.tests.host.test_stock_nodes import PATCHES
from pack.tests.host.world import SETTINGS, World, by_day, difference, empty
from torch import Tensor

STEPS = 10


def save(model: ModelPatcher, change: float, deep: int = 4, **savings: Any) -> ModelPatcher:
    return save_time(model, Savings(deep=deep, change=change, **savings))


def watch(world: World, model: ModelPatcher, **how: Any) -> list[bool]:
    """Of each forward, whether all of the UNet ran."""
    with watch_levels(world) as seen:
        world.sample(model, **{"steps": STEPS, **how})
    return [is_full for _, is_full in seen]


class ByHand:
    """What the last of the deeper blocks gives is put in from a step in full; all blocks run.

    One latent, one forward at each noise level. `streams`: rows of each cond, the first one counts.
    """

    def __init__(self, world: World, change: float, deep: int, streams: int) -> None:
        self.change, self.deep, self.streams = change, deep, streams
        self.turns: list[bool] = []
        self.rates: list[float] = []
        self.kept: Tensor | None = None
        self.wait = self.age = 1
        unet: Any = world.unet
        last = unet.output_blocks[-unet.num_res_blocks[0] - 2][-1]
        self.hook = last.register_forward_hook(self.hand_up)

    def hand_up(self, _: Any, __: Any, out: Tensor) -> Tensor:
        self.turns.append(self.age >= self.wait)
        if not self.turns[-1]:
            assert self.kept is not None
            self.age += 1
            return self.kept.clone()
        self.wait = 1
        if self.kept is not None:
            before, now = self.kept[:: self.streams].double(), out[:: self.streams].double()
            changes = [float((b - a).norm() / a.norm()) for a, b in zip(before, now, strict=True)]
            self.rates.append(max(changes) / self.age)
            self.wait = min(self.deep, 1 + int(self.change / self.rates[-1]))
        self.age, self.kept = 1, out.clone()
        return out


@pytest.mark.parametrize("setting", [None, "off", "mixed", "AdaIN-mean"])
@pytest.mark.parametrize("share", [0.9, 1.5, 2.5])
def test_the_picture_is_the_one_by_hand(tiny: World, setting: str | None, share: float) -> None:
    """With a threshold of so many times the features' usual change from step to step."""
    model = tiny.model if setting is None else tiny.patch(setting=setting)
    streams = 1 if setting in (None, "off") else 2

    def draw_by_hand(change: float) -> tuple[ByHand, Tensor]:
        hand = ByHand(tiny, change, 4, streams)
        try:
            return hand, tiny.sample(model, steps=STEPS)
        finally:
            hand.hook.remove()

    change = share * float(torch.tensor(draw_by_hand(0.0)[0].rates).median())
    hand, expected = draw_by_hand(change)
    assert difference(tiny.sample(save(model, change), steps=STEPS), expected) < ROUNDING
    assert watch(tiny, save(model, change)) == hand.turns
    assert hand.turns[:2] == [FULL, FULL]
    assert SHALLOW in hand.turns


def test_the_least_and_the_largest_threshold(tiny: World) -> None:
    assert watch(tiny, save(tiny.patch(), 1e-9)) == [FULL] * STEPS
    largest = [FULL, FULL, *([SHALLOW] * 3 + [FULL]) * 2]
    assert watch(tiny, save(tiny.patch(), 1e9)) == largest
    assert watch(tiny, save(tiny.patch(), 0.0, 2)) == [FULL, SHALLOW] * 5


@pytest.mark.parametrize("sampler", by_day(comfy.samplers.SAMPLER_NAMES, DAILY_SAMPLERS))
def test_weight_0_is_the_plain_model_that_saves_as_much(least: World, sampler: str) -> None:
    how: dict[str, Any] = {"sampler": sampler, "steps": 6, "latent": empty(2, *SMALL)}
    how["scheduler"] = SCHEDULERS.get(sampler, "normal")
    plain = least.sample(save(least.model, 0.3), **how)
    limit, _ = TOLERANCES.get(sampler, (ROUNDING, ""))
    for setting in SETTINGS:
        ours = least.sample(save(least.patch(0.0, setting), 0.3), **how)
        assert difference(ours, plain) < limit


@pytest.mark.parametrize("name", PATCHES)
def test_any_stock_patch(least: World, name: str) -> None:
    """Weight 0 is the plain model with that node that saves as much."""
    large = name in ("HyperTile", "deep shrink")
    how: dict[str, Any] = {"steps": 6, "latent": empty(1, *((32, 32) if large else SMALL))}

    def draw(model: ModelPatcher) -> Tensor:
        torch.manual_seed(0)  # HyperTile draws from the global generator
        return least.sample(save(PATCHES[name](model), 0.3), **how)

    plain = draw(least.model)
    assert torch.isfinite(plain).all()
    assert difference(draw(least.patch(0.0)), plain) < ROUNDING


def test_a_step_at_which_others_act_is_a_step_in_full(tiny: World) -> None:
    levels = watch(tiny, save(tiny.patch(start=0.2, end=0.6), 1e9, 8), steps=6)
    changes = find_changes(tiny, 0.2, 0.6)
    assert all(levels[step] for step in changes)
    assert SHALLOW in levels


def test_with_the_text_at_every_second_full_step(tiny: World) -> None:
    with watch_levels(tiny) as seen:
        tiny.sample(save(tiny.patch(), 1e9, 3, every=2), steps=8)
    turns = [FULL, FULL, SHALLOW, SHALLOW, FULL, SHALLOW, SHALLOW, FULL]
    rows = [4, 2, 2, 2, 4, 4, 4, 2]
    assert seen == list(zip(rows, turns, strict=True))


@pytest.mark.parametrize("change", [0.0, 1e9])
def test_the_number_of_full_steps_is_told(tiny: World, change: float) -> None:
    told: list[str] = []
    model = save_time(tiny.patch(), Savings(deep=3, change=change), told.append)
    levels = watch(tiny, model)
    assert told == [f"all of the UNet at {sum(levels)} of {STEPS} noise levels"]


def test_the_host_is_told_what_is_kept(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The features before stay until they are compared; 4 rows of 64 channels each, in float32."""
    kept, asked = note_memory(monkeypatch)
    for savings in (Savings(), Savings(deep=3, change=0.1)):
        tiny.sample(save_time(tiny.patch(), savings), steps=STEPS)
    stated = 4 * 64 * 16 * 16 * 4
    assert max(kept) == 2 * stated
    before, after = asked
    assert 2 * stated <= after - before

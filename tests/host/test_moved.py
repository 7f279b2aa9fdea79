"""Nodes around the model that move the picture, and guidance that perturbs it in several ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.samplers
import pytest
import torch
from comfy.model_patcher import ModelPatcher, set_model_options_patch_replace
from pack.infinite_id.host.patch import save_time
from pack.infinite_id.savings import Savings
from pack.tests.host.test_deep import FIXED, cut_tiles
from pack.tests.host.world import World, difference, sigmas
from torch import Tensor

ROUNDING = 1e-4
STEPS = 4
SAVINGS = [Savings(deep=2), Savings(every=2)]


def roll(model: ModelPatcher, shifts: dict[float, int]) -> ModelPatcher:
    """Turn the picture around before the model sees it, as for a panorama without a seam."""

    def run(apply_model: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        shift = shifts.setdefault(float(given["timestep"][0]), 3 * len(shifts))
        turned = given["input"].roll(shift, -1)
        return apply_model(turned, given["timestep"], **given["c"]).roll(-shift, -1)

    turning = model.clone()
    turning.set_model_unet_function_wrapper(run)
    return turning


@pytest.mark.parametrize("savings", SAVINGS, ids=["deep", "text"])
def test_a_picture_that_is_turned_at_each_step_is_drawn_in_full(
    least: World, savings: Savings
) -> None:
    def draw(chosen: Savings) -> Tensor:
        return least.sample(save_time(roll(least.patch(), {}), chosen), steps=STEPS)

    assert difference(draw(savings), draw(Savings())) < ROUNDING


def test_a_mask_cannot_follow_a_picture_that_is_turned(least: World) -> None:
    mask = torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    turning = roll(least.patch(mask=mask), {})
    with pytest.raises(ValueError, match="another node moves what is in the picture"):
        least.sample(turning, steps=2)


def test_the_text_of_tiles_that_move_is_drawn_in_full(least: World) -> None:
    moved = [FIXED, FIXED[::-1], FIXED[1:] + FIXED[:1]]

    def draw(savings: Savings) -> Tensor:
        turns = iter(moved * 20)
        model = cut_tiles(least.patch(), lambda: next(turns))
        return least.sample(save_time(model, savings), steps=STEPS)

    assert difference(draw(Savings(every=2)), draw(Savings())) < ROUNDING


def cut_at_once(model: ModelPatcher) -> ModelPatcher:
    """Tiles of 8x8 of the latent in one forward, those of each row together."""

    def run(apply_model: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        x, count = given["input"], len(FIXED)

        def repeat(value: Any) -> Any:
            is_dealt = isinstance(value, Tensor) and value.ndim and len(value) == len(x)
            return value.repeat_interleave(count, 0) if is_dealt else value

        tiles = [x[..., top : top + 8, left : left + 8] for top, left in FIXED]
        c = {name: repeat(value) for name, value in given["c"].items()}
        done = apply_model(torch.stack(tiles, 1).flatten(0, 1), repeat(given["timestep"]), **c)
        out = torch.zeros_like(x)
        for n, (top, left) in enumerate(FIXED):
            out[..., top : top + 8, left : left + 8] = done[n::count]
        return out

    cut = model.clone()
    cut.set_model_unet_function_wrapper(run)
    return cut


@pytest.mark.parametrize(
    ("setting", "savings"),
    [("off", Savings()), ("off", Savings(deep=2)), ("mixed", Savings(shared=True))],
)
def test_tiles_of_a_row_at_once_are_tiles_one_by_one(
    least: World, setting: str, savings: Savings
) -> None:
    mask = torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    model = save_time(least.patch(setting=setting, mask=mask), savings)
    expected = least.sample(cut_tiles(model, lambda: FIXED), steps=STEPS)
    assert difference(least.sample(cut_at_once(model), steps=STEPS), expected) < ROUNDING


# --- Guidance ------------------------------------------------------------------------------------


def look_away(_q: Tensor, _k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
    return -v


def look_nowhere(_q: Tensor, _k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.zeros_like(v)


def guide(model: ModelPatcher, perturb: Callable[..., Tensor], lowest: float) -> ModelPatcher:
    """Away from what the model draws with a layer perturbed, down to some noise level."""

    def run(args: dict[str, Any]) -> Tensor:
        denoised: Tensor = args["denoised"]
        if args["sigma"].max() < lowest:
            return denoised
        options = set_model_options_patch_replace(
            args["model_options"].copy(), perturb, "attn1", "middle", 0
        )
        (perturbed,) = comfy.samplers.calc_cond_batch(
            args["model"], [args["cond"]], args["input"], args["sigma"], options
        )
        return denoised + 3 * (args["cond_denoised"] - perturbed)

    guided = model.clone()
    guided.set_model_sampler_post_cfg_function(run)
    return guided


@pytest.mark.parametrize("savings", SAVINGS, ids=["deep", "text"])
def test_guidance_that_ends_leaves_the_other_its_features(least: World, savings: Savings) -> None:
    """One that never was there before gives the same from the step on at which the first ends."""
    first = float(sigmas(least.model, STEPS)[0])
    model = guide(guide(least.patch(), look_nowhere, first), look_away, 0.0)
    other = guide(guide(least.patch(), look_away, 0.0), look_nowhere, first)
    ours, theirs = (least.sample(save_time(one, savings), steps=STEPS) for one in (model, other))
    assert difference(ours, theirs) < ROUNDING

"""The negative prompt is left out from where it makes no difference."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import comfy.samplers
import nodes
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy_extras.nodes_perpneg import PerpNegGuider
from pack.infinite_id.application import Application
from pack.infinite_id.host.agreement import Agreement
from pack.infinite_id.host.patch import apply, save_time
from pack.infinite_id.identities import mixing
from pack.infinite_id.savings import Savings
from pack.tests.host.test_deep import DAILY_SAMPLERS, find_changes
from pack.tests.host.test_exactness import ROUNDING, SCHEDULERS, SMALL, TOLERANCES
from pack.tests.host.test_savings import count_rows, watch_inputs
from pack.tests.host.test_stock_nodes import PATCHES
from pack.tests.host.world import SETTINGS, World, by_day, difference, empty, sample_custom
from torch import Tensor

STEPS = 6


class ByHand:
    """In a run that leaves nothing out, the positive prompt's prediction is put in for both.

    Attributes:
        cosines: of the predicted noises of each evaluation, the least of all pictures.
    """

    def __init__(self, threshold: float, identity: int = 1) -> None:
        self.threshold, self.identity = threshold, identity
        self.cosines: list[float] = []

    def evaluate(
        self, executor: WrapperExecutor, model: Any, conds: Any, x: Tensor, *rest: Any
    ) -> list[Tensor]:
        has_agreed = any(cosine > self.threshold for cosine in self.cosines)
        denoised: list[Tensor] = executor(model, conds, x, *rest)
        a, b = ((x - one)[: self.identity].flatten(1).double() for one in denoised)
        found = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
        self.cosines.append(float(found.min()))
        return [denoised[0], denoised[0].clone()] if has_agreed else denoised

    def put_on(self, model: ModelPatcher) -> ModelPatcher:
        watched = model.clone()
        watched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "by hand", self.evaluate)
        return watched


def find_threshold(world: World, model: ModelPatcher, **how: Any) -> float:
    """A cosine that some evaluations are below and some above, apart from all that there are."""
    hand = ByHand(2.0)
    world.sample(hand.put_on(model), **how)
    found = sorted(hand.cosines)
    gaps = [(b - a, (a + b) / 2) for a, b in pairwise(found[1:])]
    return max(gaps)[1]


def save(model: ModelPatcher, threshold: float, **savings: Any) -> ModelPatcher:
    return save_time(model, Savings(agree=threshold, **savings))


@pytest.mark.parametrize("setting", [None, "off", "mixed", "AdaIN-mean"])
def test_the_picture_is_the_one_by_hand(tiny: World, setting: str | None) -> None:
    model = tiny.model if setting is None else tiny.patch(setting=setting)
    how: dict[str, Any] = {"steps": STEPS, "latent": empty(2)}
    threshold = find_threshold(tiny, model, **how)
    hand = ByHand(threshold, identity=2)
    expected = tiny.sample(hand.put_on(model), **how)
    with watch_inputs(tiny) as seen:
        ours = tiny.sample(save(model, threshold), **how)
    assert difference(ours, expected) < ROUNDING
    rows = 2 if setting in (None, "off") else 4
    first = next(i for i, cosine in enumerate(hand.cosines) if cosine > threshold) + 1
    assert 0 < first < STEPS
    assert [len(x) for x in seen] == [2 * rows] * first + [rows] * (STEPS - first)
    assert difference(ours, tiny.sample(model, **how)) > ROUNDING


@pytest.mark.parametrize("sampler", by_day(comfy.samplers.SAMPLER_NAMES, DAILY_SAMPLERS))
def test_weight_0_is_the_plain_model_that_saves_as_much(least: World, sampler: str) -> None:
    how: dict[str, Any] = {"sampler": sampler, "steps": STEPS, "latent": empty(1, *SMALL)}
    how["scheduler"] = SCHEDULERS.get(sampler, "normal")
    threshold = find_threshold(least, least.model, **how)
    plain = least.sample(save(least.model, threshold), **how)
    limit, _ = TOLERANCES.get(sampler, (ROUNDING, ""))
    for setting in SETTINGS:
        ours = least.sample(save(least.patch(0.0, setting), threshold), **how)
        assert difference(ours, plain) < limit


@pytest.mark.parametrize(
    "savings", [{"every": 2}, {"guided": False}, {"until": 0.45}, {"deep": 2}, {"remember": 1.0}]
)
def test_with_other_savings(least: World, savings: dict[str, Any]) -> None:
    """Rows are left out; where the text stream is not another one, weight 0 is the plain model."""
    how: dict[str, Any] = {"steps": STEPS, "latent": empty(1, *SMALL)}
    threshold = find_threshold(least, least.model, **how)
    plain = least.sample(save(least.model, threshold, deep=savings.get("deep", 1)), **how)
    if not savings.keys() & {"every", "guided"}:
        ours = least.sample(save(least.patch(0.0), threshold, **savings), **how)
        assert difference(ours, plain) < ROUNDING
    with watch_inputs(least) as seen:
        assert least.sample(save(least.patch(), -1.0, **savings), **how).isfinite().all()
    with watch_inputs(least) as both:
        least.sample(save_time(least.patch(), Savings(**savings)), **how)
    assert sum(map(len, seen)) < sum(map(len, both))


def test_in_steps_of_the_outermost_level_it_is_as_in_the_last_full_step(least: World) -> None:
    with watch_inputs(least) as seen:
        least.sample(save(least.model, -1.0, deep=3), steps=STEPS)  # it agrees at once
    assert [len(rows) for rows in seen] == [2, 2, 2, 1, 1, 1]


def test_a_sweep(tiny: World) -> None:
    """The end comes when all people's predictions agree."""
    sweep = apply(tiny.model, Application(mixing.interpolate([tiny.identity, tiny.other], [0, 1])))
    threshold = find_threshold(tiny, sweep, steps=STEPS)
    hand = ByHand(threshold, identity=2)
    expected = tiny.sample(hand.put_on(sweep), steps=STEPS)
    assert difference(tiny.sample(save(sweep, threshold), steps=STEPS), expected) < ROUNDING


def test_without_guidance_there_is_nothing_to_leave_out(tiny: World) -> None:
    told: list[str] = []
    model = save_time(tiny.patch(), Savings(agree=0.0), told.append)
    assert torch.equal(tiny.sample(model, cfg=1.0), tiny.sample(tiny.patch(), cfg=1.0))
    assert told == []


def test_three_prompts_are_all_drawn(tiny: World) -> None:
    def count(model: ModelPatcher) -> list[int]:
        prompts = (tiny.positive, tiny.negative, tiny.middle)
        guide = PerpNegGuider.execute(model, *prompts, 5.0, 1.0).result[0]
        with watch_inputs(tiny) as seen:
            sample_custom(guide)
        return [len(rows) for rows in seen]

    assert count(save(tiny.patch(), -1.0)) == count(tiny.patch())


def test_what_is_left_out_is_told(tiny: World) -> None:
    told: list[str] = []
    model = save_time(tiny.patch(), Savings(agree=-1.0), told.append)
    assert count_rows(tiny, model) == [4] + [2] * (STEPS - 1)
    assert told == [f"no negative prompt in {STEPS - 1} of {STEPS} evaluations"]


def test_a_sampler_that_climbs_has_guidance_again() -> None:
    groups: Any = [[{}], [{}]]
    x = torch.ones(1, 4, 2, 2)
    agreement, found = Agreement(0.5), []
    for sigma in (10.0, 5.0, 8.0, 4.0):
        agreement.enter(sigma, is_full=True)
        found.append(agreement.leaves_out(groups, frozenset({0})))
        if not found[-1]:
            agreement.see(groups, frozenset({0}), x, [0.5 * x, 0.4 * x])
    assert found == [False, True, False, True]


def test_where_others_act_there_is_guidance_again(least: World) -> None:
    """A person or a prompt comes, whom what agreed before does not show."""
    cut = nodes.ConditioningSetTimestepRange().set_range
    (early,), (late,) = cut(least.positive, 0.0, 0.3)[0], cut(least.negative, 0.3, 1.0)[0]
    for start, negative in ((0.3, least.negative), (0.0, [early, late])):
        model = save(least.patch(start=start), -1.0)  # it agrees at once
        with watch_inputs(least) as seen:
            least.sample(model, steps=STEPS, negative=negative, latent=empty(1, *SMALL))
        change, _ = find_changes(least, 0.3, 0.7)
        full = [step in (0, change) for step in range(STEPS)]
        assert [len(x) for x in seen] == [4 if is_full else 2 for is_full in full]


@pytest.mark.parametrize("name", PATCHES)
def test_any_stock_patch(least: World, name: str) -> None:
    """Weight 0 is the plain model with that node that saves as much."""
    large = name in ("HyperTile", "deep shrink")
    how: dict[str, Any] = {"steps": STEPS, "latent": empty(1, *((32, 32) if large else SMALL))}

    def draw(weight: float | None) -> Tensor:
        torch.manual_seed(0)  # HyperTile draws from the global generator
        model = least.model if weight is None else least.patch(weight)
        return least.sample(save(PATCHES[name](model), -1.0), **how)

    plain = draw(None)
    assert torch.isfinite(plain).all()
    assert difference(draw(0.0), plain) < ROUNDING

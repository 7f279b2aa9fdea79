"""Weighted stacks and sweeps on the host: what must equal what, and what a sweep costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pack.infinite_id.application import Application, Curve, Levels
from pack.infinite_id.host.patch import apply
from pack.infinite_id.host.people import Person
from pack.infinite_id.identities import mixing
from pack.infinite_id.identities.identity import Identity
from pack.nodes.mixing import BLENDS
from pack.tests.host import world as host
from pack.tests.host.world import SETTINGS, World, by_day, difference, empty
from torch import Tensor

ROUNDING = 1e-4


def draw(world: World, identity: Identity, setting: str = "mixed", **changes: Any) -> Tensor:
    options = {name: changes.pop(name) for name in ("curve", "levels", "mask") if name in changes}
    mixed, style = SETTINGS[setting]
    application = Application(identity, mixing=mixed, style=style, **options)
    return world.sample(apply(world.model, application), **changes)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("weight", [0.3, 0.9])
def test_a_person_stacked_on_itself_is_that_person(
    tiny: World, setting: str, weight: float
) -> None:
    twice = mixing.stack([tiny.identity, tiny.identity], [weight, 1 - weight])
    assert twice.shares is not None
    expected = draw(tiny, tiny.identity, setting)
    assert difference(draw(tiny, twice, setting), expected) < ROUNDING


def test_weights_of_a_stack_move_the_picture(tiny: World) -> None:
    people = [tiny.identity, other(tiny)]
    alone = draw(tiny, tiny.identity)
    steps = [difference(draw(tiny, mixing.stack(people, [1, w])), alone) for w in (0, 0.1, 1, 10)]
    assert steps[0] == 0
    assert steps == sorted(steps)
    assert steps[1] > 100 * ROUNDING


def other(world: World) -> Identity:
    """Another person of the same adapter; of one adapter there is one 'no identity'."""
    return replace(world.other, unconditional=world.identity.unconditional)


@pytest.mark.parametrize("setting", by_day(list(SETTINGS), ["AdaIN-mean"]))
@pytest.mark.parametrize("method", ["linear", "stack"])
def test_the_ends_of_a_sweep_are_the_single_pictures(
    tiny: World, method: str, setting: str
) -> None:
    """Same noise for the whole row, whatever the sampler draws on its way."""
    people = [tiny.identity, other(tiny)]
    row = draw(tiny, BLENDS[method](people, [0.0, 0.5, 1.0]), setting, sampler="euler_ancestral")
    assert row.shape[0] == 3
    for place, person in ((0, people[0]), (2, people[1])):
        single = draw(tiny, person, setting, sampler="euler_ancestral")
        assert difference(row[place : place + 1], single) < ROUNDING
    assert difference(row[1], row[0]) > 100 * ROUNDING
    assert difference(row[1], row[2]) > 100 * ROUNDING


def test_each_place_of_a_sweep_is_its_own_picture(tiny: World) -> None:
    places = [0.2, 0.7]
    people = [tiny.identity, other(tiny)]
    row = draw(tiny, mixing.interpolate(people, places))
    for found, place in zip(row, places, strict=True):
        single = draw(tiny, mixing.interpolate(people, [place]))
        assert difference(found[None], single) < ROUNDING


def test_a_batch_of_latents_gives_a_row_for_each(tiny: World) -> None:
    """Two latents, three places: six pictures, each as the batch without a sweep draws it."""
    people = [tiny.identity, other(tiny)]
    rows = draw(tiny, mixing.interpolate(people, [0.0, 0.5, 1.0]), latent=empty(2))
    assert rows.shape[0] == 6
    for place, person in ((0, people[0]), (2, people[1])):
        batch = draw(tiny, person, latent=empty(2))
        assert difference(rows[[place, place + 3]], batch) < ROUNDING


def test_a_sweep_with_a_mask_and_a_second_person(tiny: World) -> None:
    mask = torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    people = [tiny.identity, other(tiny)]
    sweep = mixing.interpolate(people, [0.0, 1.0])

    def both(first: Identity) -> Tensor:
        model = apply(tiny.model, Application(first, mask=mask))
        return tiny.sample(apply(model, Application(people[1], mask=1 - mask)))

    row = both(sweep)
    assert row.shape[0] == 2
    assert difference(row[:1], both(people[0])) < ROUNDING
    assert difference(row[1:], both(people[1])) < ROUNDING


@pytest.mark.parametrize("weights", [([1, 1], [1, 0.2]), ([1, 0.3], [2, 5]), ([3, 1], [1, 1])])
def test_a_sweep_of_weighted_stacks_ends_on_them(
    tiny: World, weights: tuple[list[float], list[float]]
) -> None:
    people = [tiny.identity, other(tiny)]
    keys = [mixing.stack(people, given) for given in weights]
    row = draw(tiny, mixing.interpolate(keys, [0.0, 1.0]))
    for picture, key in zip(row.split(1), keys, strict=True):
        assert difference(picture, draw(tiny, key)) < ROUNDING
    assert difference(row[1:], row[:1]) > 10 * ROUNDING


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_x0_and_previews_of_a_sweep_lie_as_its_samples_do(tiny: World, batch: int) -> None:
    sweep = mixing.interpolate([tiny.identity, other(tiny)], [0.0, 0.5, 1.0])
    guide = host.guider(tiny.patch(identity=sweep), tiny.positive, tiny.negative)
    samples, denoised = host.sample_custom(guide, latent=empty(batch))
    assert len(samples) == 3 * batch
    assert difference(denoised, samples) < 1e-6  # the last Euler step ends on x0 itself


def test_inpainting_a_sweep(tiny: World) -> None:
    """The noise mask of one latent holds for all its pictures."""
    latent = host.painted()
    latent["noise_mask"] = torch.zeros(1, 1, 16, 16)
    latent["noise_mask"][..., 8:] = 1
    row = draw(tiny, mixing.interpolate([tiny.identity, other(tiny)], [0.0, 1.0]), latent=latent)
    assert difference(row[:1], draw(tiny, tiny.identity, latent=latent)) < ROUNDING
    # The host lets the kept part drift by rounding.
    assert difference(row[..., :8], latent["samples"][..., :8].expand(2, -1, -1, -1)) < ROUNDING


@pytest.mark.parametrize(("setting", "rows"), [("mixed", 5 + 1), ("off", 5)], ids=["mixed", "off"])
@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_rows_per_step(tiny: World, setting: str, rows: int, cfg: float) -> None:
    """n + 1 rows per guidance branch and step, n where nothing reads the text stream."""
    seen = []
    hook = tiny.unet.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        sweep = mixing.interpolate([tiny.identity, other(tiny)], [0, 0.25, 0.5, 0.75, 1])
        draw(tiny, sweep, setting, cfg=cfg, steps=3)
    finally:
        hook.remove()
    assert sum(seen) == 3 * rows * (2 if cfg > 1 else 1)


def test_sweeps_of_different_lengths_are_refused(tiny: World) -> None:
    people = [tiny.identity, other(tiny)]
    model = tiny.model
    for places in ([0, 1], [0, 0.5, 1]):
        model = apply(model, Application(mixing.interpolate(people, places)))
    with pytest.raises(ValueError, match=r"\[2, 3\] are applied to one model"):
        tiny.sample(model)


# --- Time and place ----------------------------------------------------------------------------


def test_levels_are_factors_on_the_weight(tiny: World) -> None:
    half = Levels(0.5, 0.5, 0.5)
    application = Application(tiny.identity, weight=0.5)
    expected = tiny.sample(apply(tiny.model, application))
    assert difference(draw(tiny, tiny.identity, levels=half), expected) < ROUNDING
    pictures = [
        draw(tiny, tiny.identity, levels=levels)
        for levels in (Levels(), Levels(input=0), Levels(middle=0), Levels(output=0))
    ]
    for i, one in enumerate(pictures):
        for next_ in pictures[i + 1 :]:
            assert difference(one, next_) > 10 * ROUNDING


@pytest.mark.parametrize("setting", SETTINGS)
def test_all_levels_at_0_are_the_unpatched_model(tiny: World, setting: str) -> None:
    none = draw(tiny, tiny.identity, setting, levels=Levels(0, 0, 0))
    assert difference(none, tiny.sample(tiny.model)) < ROUNDING


@pytest.mark.parametrize("curve", Curve)
def test_a_curve_gives_each_step_its_factor(
    tiny: World, curve: Curve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the curve's formula, at the share of the sampling that a sigma stands for."""
    seen = []
    factor_at = Person.factor_at

    def watch(person: Person, sigma: Tensor) -> float | None:
        seen.append((float(sigma), factor_at(person, sigma)))
        return seen[-1][1]

    monkeypatch.setattr(Person, "factor_at", watch)
    start, end = 0.2, 0.9
    application = Application(tiny.identity, curve=curve, start=start, end=end)
    tiny.sample(apply(tiny.model, application), steps=12)
    model_sampling = tiny.model.get_model_object("model_sampling")
    formulas = {
        Curve.CONSTANT: lambda _: torch.ones(()),
        Curve.FADE_IN: lambda x: (torch.pi * x / 2).sin() ** 2,
        Curve.FADE_OUT: lambda x: (torch.pi * x / 2).cos() ** 2,
        Curve.PEAK: lambda x: (torch.pi * x).sin() ** 2,
    }
    acted = 0
    for sigma, factor in seen:
        share = 1 - float(model_sampling.timestep(torch.tensor(sigma))) / 999
        if share < start - 0.01 or share > end + 0.01:
            assert factor is None
        elif start + 0.01 < share < end - 0.01:
            acted += 1
            place = torch.tensor((share - start) / (end - start))
            assert factor == pytest.approx(float(formulas[curve](place)), abs=0.02)
    assert acted >= 6


def test_curves_move_the_picture(tiny: World) -> None:
    pictures = [draw(tiny, tiny.identity, curve=curve) for curve in Curve]
    for i, one in enumerate(pictures):
        for next_ in pictures[i + 1 :]:
            assert difference(one, next_) > 10 * ROUNDING

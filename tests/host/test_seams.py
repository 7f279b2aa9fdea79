"""Where other nodes meet the two streams: the right picture, or a sentence that says why not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import comfy.sample
import comfy.samplers
import nodes
import pytest
import torch
from comfy.k_diffusion.sampling import to_d
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_extras import nodes_custom_sampler as custom
from pack.infinite_id.application import Application
from pack.infinite_id.attention.mixed import Mixing
from pack.infinite_id.host import sampling
from pack.infinite_id.host.patch import apply, save_time
from pack.infinite_id.host.run import Run
from pack.infinite_id.identities import mixing
from pack.infinite_id.savings import Savings
from pack.tests.host.test_stock_nodes import stock
from pack.tests.host.world import (
    SEED,
    Latent,
    World,
    by_day,
    difference,
    empty,
    guider,
    painted,
    sample_custom,
    sigmas,
)
from torch import Tensor

ROUNDING = 1e-5
STEPS = 8
EVERY_2ND = Savings(every=2)
Step = Callable[..., Tensor]


def half_mask(side: str = "left") -> Tensor:
    mask = torch.zeros(1, 16, 16)
    mask[..., slice(8) if side == "left" else slice(8, 16)] = 1
    return mask


@contextmanager
def count_rows(world: World) -> Iterator[list[int]]:
    rows: list[int] = []
    hook = world.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        yield rows
    finally:
        hook.remove()


@contextmanager
def watch_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Run]]:
    runs: list[Run] = []
    prepare = sampling.prepare
    with monkeypatch.context() as patch:
        patch.setattr(
            sampling, "prepare", lambda *args, **how: runs.append(prepare(*args, **how)) or runs[-1]
        )
        yield runs


def sampler(step: Step) -> Any:
    """A sampler out of `step(model, x, sigmas, i, **how)`, which gives the next latents."""

    def run(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any, **_: Any) -> Tensor:
        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return model(x, sigma * x.new_ones([len(x)]), **extra_args)

        for i in range(len(sigmas) - 1):
            x = step(denoise, x, sigmas, i)
        return x

    return comfy.samplers.KSAMPLER(run)


def go(world: World, model: ModelPatcher, how: Any, cfg: float = 5.0, **rest: Any) -> Tensor:
    torch.manual_seed(SEED)
    guide = guider(model, world.positive, world.negative, cfg)
    return sample_custom(guide, sampler=how, **{"steps": STEPS, **rest})[0]


# --- What is kept from step to step --------------------------------------------------------------


def schedule_prompts(world: World) -> World:
    """One prompt for the first part, another for the rest."""
    cut = nodes.ConditioningSetTimestepRange().set_range
    parts = cut(world.positive, 0.0, 0.6)[0], cut(world.middle, 0.6, 1.0)[0]
    return replace(world, positive=nodes.ConditioningCombine().combine(*parts)[0])


@pytest.mark.parametrize("every", [2, 3])
def test_scheduled_prompts(least: World, every: int) -> None:
    """Where the prompt changes, there is nothing to be recalled: both streams run once more."""
    world = schedule_prompts(least)
    model = save_time(least.patch(), Savings(every=every))
    with count_rows(least) as rows:
        world.sample(model, steps=STEPS)
    assert rows.count(4) == len(range(0, STEPS, every)) + 1
    nobody = world.sample(save_time(least.patch(0.0), Savings(every=every)), steps=STEPS)
    assert difference(nobody, world.sample(least.model, steps=STEPS)) < 0.1


def test_areas_whose_copies_share_a_name(least: World) -> None:
    """The host copies a negative cond for each area, and gives the copy the positive one's uuid."""
    areas = [
        nodes.ConditioningSetArea().append(prompt, 64, 128, x, 0, 1.0)[0]
        for prompt, x in ((least.middle, 0), (least.positive, 64))
    ]
    positive = nodes.ConditioningCombine().combine(least.positive, areas[0])[0]
    positive = nodes.ConditioningCombine().combine(positive, areas[1])[0]
    world = replace(least, positive=positive)
    model = least.patch()
    full = world.sample(model, steps=2)
    kept = world.sample(save_time(model, EVERY_2ND), steps=2)
    assert 0 < difference(kept, full) < 0.05


DEEP_SHRINK = stock(
    "model_downscale", "PatchModelAddDownscale", 1, 2.0, 0.0, 0.5, True, "bicubic", "bicubic"
)


def test_deep_shrink(least: World) -> None:
    """Features of fewer tokens are of no use: the text stream runs where the size changes."""
    model = save_time(DEEP_SHRINK(least.patch()), EVERY_2ND)
    picture = least.sample(model, latent=empty(1, 32, 32), steps=6)
    full = least.sample(DEEP_SHRINK(least.patch()), latent=empty(1, 32, 32), steps=6)
    assert 0 < difference(picture, full) < 0.1


def test_a_pictures_features_are_its_own(least: World) -> None:
    """The first picture of a batch does not move with the noise of the others."""
    model = save_time(DEEP_SHRINK(least.patch()), EVERY_2ND)

    def draw(seed: int) -> Tensor:
        noise = torch.randn(4, 4, 32, 32, generator=torch.Generator().manual_seed(0))
        noise[3] = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            return comfy.sample.sample(
                model, noise, 6, 5.0, "euler", "normal", least.positive, least.negative,
                torch.zeros_like(noise), disable_pbar=True, seed=SEED,
            )  # fmt: skip

    assert difference(draw(1)[:1], draw(2)[:1]) < ROUNDING


def test_a_latent_that_grows(least: World) -> None:
    pytest.importorskip("comfy_extras.nodes_advanced_samplers")
    from comfy_extras.nodes_advanced_samplers import SamplerLCMUpscale

    def grow(model: ModelPatcher) -> Tensor:
        how = SamplerLCMUpscale.execute(1.5, 2, "bilinear").result[0]
        return go(least, model, how, latent=empty(1, 8, 8), steps=4)

    assert grow(save_time(least.patch(), EVERY_2ND)).shape[-1] > 8
    assert difference(grow(least.patch(0.0)), grow(least.model)) < 1e-4
    masked = grow(least.patch(mask=torch.zeros(1, 16, 16)))
    assert difference(masked, grow(least.model)) < 1e-4


def euler(denoise: Step, x: Tensor, sigmas: Tensor, i: int) -> Tensor:
    return x + to_d(x, sigmas[i], denoise(x, sigmas[i])) * (sigmas[i + 1] - sigmas[i])


def euler_and_waste(denoise: Step, x: Tensor, sigmas: Tensor, i: int) -> Tensor:
    """Evaluates something else at each noise level as well, and throws it away."""
    stepped = euler(denoise, x, sigmas, i)
    denoise(0.5 * x, sigmas[i])
    return stepped


@pytest.mark.parametrize("savings", [Savings(), EVERY_2ND, Savings(every=3, guided=False)])
def test_an_evaluation_whose_result_is_thrown_away(least: World, savings: Savings) -> None:
    model = save_time(least.patch(), savings)
    expected = go(least, model, sampler(euler))
    assert difference(go(least, model, sampler(euler_and_waste)), expected) < ROUNDING


@pytest.mark.parametrize("savings", [Savings(), EVERY_2ND, Savings(every=2, guided=False)])
def test_perturbed_attention_of_no_weight(least: World, savings: Savings) -> None:
    """Its evaluation keeps and recalls features of its own."""
    model = save_time(least.patch(), savings)
    guided = stock("pag", "PerturbedAttentionGuidance", 1e-6)(model)
    assert difference(least.sample(guided, steps=6), least.sample(model, steps=6)) < ROUNDING


def restart(denoise: Step, x: Tensor, sigmas: Tensor, i: int) -> Tensor:
    """Euler, and from the fourth step on once back to the second."""
    x = euler(denoise, x, sigmas, i)
    if i == 3:
        x = x + torch.randn_like(x) * (sigmas[1] ** 2 - sigmas[4] ** 2).sqrt()
        for again in (1, 2, 3):
            x = euler(denoise, x, sigmas, again)
    return x


@pytest.mark.parametrize("savings", [Savings(until=0.4), Savings(every=2, until=0.4)])
@pytest.mark.parametrize("setting", ["mixed", "mutual", "AdaIN-mean"])
def test_a_sampler_that_climbs_again(least: World, setting: str, savings: Savings) -> None:
    """The text stream sees the identity stream's latents from then on."""
    nobody = save_time(least.patch(0.0, setting), replace(savings, every=1))
    plain = go(least, least.model, sampler(restart), 2.0)
    assert difference(go(least, nobody, sampler(restart), 2.0), plain) < ROUNDING
    assert torch.isfinite(go(least, save_time(least.patch(), savings), sampler(restart))).all()


def test_a_sweep_cannot_climb_again(least: World) -> None:
    sweep = mixing.interpolate([least.identity, least.other], [0.0, 1.0])
    model = save_time(apply(least.model, Application(sweep)), Savings(until=0.4))
    with pytest.raises(ValueError, match="goes back to higher noise"):
        go(least, model, sampler(restart))


@pytest.mark.parametrize("every", [2, 3])
def test_features_of_a_prompt_that_is_over_are_not_kept(
    least: World, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Never more than the keys and values of one evaluation."""
    kept: list[int] = []
    latent, world = empty()["samples"], schedule_prompts(least)
    with watch_run(monkeypatch) as runs, torch.inference_mode():
        comfy.sample.sample(
            save_time(least.patch(), Savings(every=every)), torch.randn_like(latent), STEPS, 5.0,
            "euler", "normal", world.positive, world.negative, latent, disable_pbar=True,
            seed=SEED, callback=lambda *_: kept.append(runs[0].text.memory.nbytes),
        )  # fmt: skip
    assert len(set(kept)) == 1


def test_features_end_with_the_mixing(least: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_time(least.patch(), Savings(every=2, until=0.5))
    kept: list[int] = []
    latent = empty()["samples"]
    with watch_run(monkeypatch) as runs, torch.inference_mode():
        comfy.sample.sample(
            model, torch.randn_like(latent), STEPS, 5.0, "euler", "normal", least.positive,
            least.negative, latent, disable_pbar=True, seed=SEED,
            callback=lambda *_: kept.append(runs[0].text.memory.nbytes),
        )  # fmt: skip
    assert all(kept[: STEPS // 2])
    assert not any(kept[STEPS // 2 :])


# --- Caches of others ----------------------------------------------------------------------------


@pytest.mark.parametrize("savings", [EVERY_2ND, Savings(until=0.5), Savings(guided=False)], ids=str)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["EasyCache", "LazyCache"])
def test_caches(
    least: World, name: str, savings: Savings, first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """They count on the same rows at each step: nothing is saved, and the log says so."""
    cache = stock("easycache", f"{name}Node", 3.0, 0.0, 1.0, False)
    alone = cache(least.patch())
    if first:
        model = save_time(apply(cache(least.model), Application(least.identity)), savings)
    else:
        model = cache(save_time(least.patch(), savings))
    with caplog.at_level(logging.WARNING):
        picture = least.sample(model, steps=STEPS)
    assert "Save Time saves nothing" in caplog.text
    assert name.lower() in caplog.text.lower()
    assert difference(picture, least.sample(alone, steps=STEPS)) < ROUNDING


@pytest.mark.parametrize("span", [{"end": 0.5}, {"start": 0.4}], ids=["leaves", "comes late"])
@pytest.mark.parametrize("savings", [Savings(), Savings(shared=True)], ids=["own", "shared"])
def test_easycache_and_a_person_who_acts_for_a_while(
    least: World, span: dict[str, float], savings: Savings
) -> None:
    """Both streams keep their rows, though nobody reads the text stream at some levels."""
    cache = stock("easycache", "EasyCacheNode", 0.2, 0.0, 1.0, False)
    with count_rows(least) as rows:
        least.sample(cache(save_time(least.patch(**span), savings)), steps=STEPS)
    assert set(rows) == {4}
    alone = cache(least.patch(weight=0.0))
    picture = least.sample(cache(save_time(least.patch(weight=0.0, **span), savings)), steps=STEPS)
    assert difference(picture, least.sample(alone, steps=STEPS)) < ROUNDING


def test_a_cache_that_never_runs_the_model_while_a_person_acts(least: World) -> None:
    cache = stock("easycache", "EasyCacheNode", 3.0, 0.0, 1.0, False)  # runs it once, at the start
    with pytest.raises(ValueError, match="model did not run while a person was to be drawn"):
        least.sample(cache(least.patch(start=0.4)), steps=STEPS)


def keep_every_2nd(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A careless cache: what the last call gave stands for every second one."""
    kept: list[Tensor] = []

    def cached(*args: Any) -> Tensor:
        if kept:
            return kept.pop()
        kept.append(run(*args))
        return kept[0]

    return cached


def cache_the_model(model: ModelPatcher) -> None:
    model.set_model_unet_function_wrapper(
        keep_every_2nd(lambda run, given: run(given["input"], given["timestep"], **given["c"]))
    )


def cache_a_cross_attention(model: ModelPatcher) -> None:
    model.set_model_attn2_replace(keep_every_2nd(lambda q, *_: q.clone()), "middle", 0, 0)


@pytest.mark.parametrize("savings", [EVERY_2ND, Savings(guided=False)], ids=str)
@pytest.mark.parametrize("cache", [cache_the_model, cache_a_cross_attention])
def test_a_cache_that_gives_other_rows_is_refused(
    least: World, cache: Callable[[ModelPatcher], None], savings: Savings
) -> None:
    model = save_time(least.patch(), savings)
    cache(model)
    with pytest.raises(ValueError, match=r"rows where there are .* or Infinite-ID Save Time"):
        least.sample(model)


def test_a_node_around_each_step_that_keeps_nothing(least: World) -> None:
    """Such as one that sets the guidance anew: what was to be saved is saved."""
    model = save_time(least.patch(), EVERY_2ND)
    model.add_wrapper(WrappersMP.PREDICT_NOISE, lambda executor, *args: executor(*args))
    with count_rows(least) as rows:
        least.sample(model, steps=STEPS)
    assert rows == [4, 2] * (STEPS // 2)


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_a_node_that_runs_the_layers_itself(least: World, start: float) -> None:
    """It passes our forward by: the person would be missing, at the price of two streams."""
    model = least.patch(start=start)

    def run(_: Any, args: dict[str, Any]) -> Tensor:
        return args["input"] * 0.5

    model.set_model_unet_function_wrapper(run)
    with pytest.raises(ValueError, match="runs the model's layers itself"):
        least.sample(model)


def test_a_prompt_that_comes_late_is_no_such_node(least: World) -> None:
    late = nodes.ConditioningSetTimestepRange().set_range(least.positive, 0.5, 1.0)[0]
    negative = nodes.ConditioningSetTimestepRange().set_range(least.negative, 0.5, 1.0)[0]
    picture = least.sample(least.patch(), positive=late, negative=negative)
    assert torch.isfinite(picture).all()


SAG = stock("sag", "SelfAttentionGuidance", 0.5, 2.0)


@pytest.mark.parametrize("savings", [EVERY_2ND, Savings(guided=False)], ids=str)
def test_what_a_replaced_attention_keeps(
    least: World, savings: Savings, caplog: pytest.LogCaptureFixture
) -> None:
    """Self-attention guidance reads the attention of the forward's rows for all of the batch."""
    with caplog.at_level(logging.WARNING):
        picture = least.sample(SAG(save_time(least.patch(), savings)))
    assert "Save Time saves nothing" in caplog.text
    assert difference(picture, least.sample(SAG(least.patch()))) < ROUNDING


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("changes", "savings"),
    [
        ({"end": 0.5}, Savings()),
        ({}, Savings(until=0.5)),
        ({}, Savings(shared=True)),
        ({"end": 0.5}, Savings(shared=True)),
        ({"start": 0.5}, Savings(shared=True)),
    ],
    ids=["end", "until", "shared", "end-shared", "start-shared"],
)
def test_a_replaced_attention_keeps_its_own_rows(
    precise: World, changes: dict[str, float], savings: Savings, batch: int
) -> None:
    how = {"latent": empty(batch, 8, 8)}
    plain = precise.sample(SAG(precise.model), **how)
    nobody = SAG(save_time(precise.patch(0.0, **changes), savings))
    assert difference(precise.sample(nobody, **how), plain) < ROUNDING


def test_with_shared_latents_a_replaced_attention_keeps_the_persons(least: World) -> None:
    """Not the text stream's: the last rows that it sees are those that the host called with."""
    seen: list[Tensor] = []

    def keep(q: Tensor, *_: Any) -> Tensor:
        seen.append(q)
        return q

    model = save_time(least.patch(), Savings(shared=True))
    model.set_model_attn1_replace(keep, "middle", 0, 0)
    least.sample(model, steps=1, cfg=1.0)
    text, person = seen
    assert len(text) == len(person) == 1
    plain = least.model.clone()
    plain.set_model_attn1_replace(keep, "middle", 0, 0)
    least.sample(plain, steps=1, cfg=1.0)
    assert difference(text, seen[-1]) < ROUNDING
    assert difference(person, seen[-1]) > 1e-3


@pytest.mark.parametrize(
    ("changes", "savings"),
    [({"end": 0.5}, Savings()), ({}, Savings(until=0.5))],
    ids=["end", "until"],
)
def test_what_is_taken_from_the_whole_batch(
    least: World, changes: dict[str, float], savings: Savings
) -> None:
    """Mahiro takes a mean over all rows; those of a text stream that has ended do not move it."""
    mahiro = stock("mahiro", "Mahiro")
    plain = least.sample(mahiro(least.model), steps=STEPS)
    nobody = mahiro(save_time(least.patch(0.0, **changes), savings))
    assert difference(least.sample(nobody, steps=STEPS), plain) < ROUNDING


# --- Noise levels ---------------------------------------------------------------------------------


def read_one_sigma(model: ModelPatcher) -> ModelPatcher:
    """Guidance that takes the noise level for one number, as it is for one latent."""
    model = model.clone()
    model.set_model_sampler_post_cfg_function(
        lambda given: given["denoised"] * (0.9 if given["sigma"].item() > 1 else 1.1)
    )
    return model


@pytest.mark.parametrize(
    "patch",
    [read_one_sigma, stock("eps", "TemporalScoreRescaling", 0.95, 1.0)],
    ids=["item", "TemporalScoreRescaling"],
)
@pytest.mark.parametrize("savings", [Savings(), Savings(until=0.5)], ids=str)
def test_guidance_that_knows_one_noise_level(
    least: World, savings: Savings, patch: Callable[[ModelPatcher], ModelPatcher]
) -> None:
    plain = least.sample(patch(least.model))
    nobody = patch(save_time(least.patch(0.0), savings))
    assert difference(least.sample(nobody), plain) < ROUNDING


RENORM = stock("lumina2", "RenormCFG", 100.0, 0.8)
VIDEO = [
    stock("video_model", node, 1.0, method="patch")
    for node in ("VideoLinearCFGGuidance", "VideoTriangleCFGGuidance")
]


@pytest.mark.parametrize(
    ("patch", "latents"), [(VIDEO[0], 3), (VIDEO[1], 3), (VIDEO[1], 1), (RENORM, 1)]
)
@pytest.mark.parametrize("savings", [Savings(), Savings(shared=True), Savings(until=0.5)], ids=str)
def test_guidance_that_counts_latents(
    least: World, savings: Savings, patch: Callable[[ModelPatcher], ModelPatcher], latents: int
) -> None:
    how = {"latent": empty(latents), "steps": 2}
    plain = least.sample(patch(least.model), **how)
    nobody = patch(save_time(least.patch(0.0), savings))
    assert difference(least.sample(nobody, **how), plain) < ROUNDING


def test_noise_for_fewer_pictures_than_the_latent_holds_is_refused(least: World) -> None:
    """As behind a sweep of Latent From Batch: the latent names one of the three that it holds."""
    latent = {"samples": torch.zeros(3, 4, 8, 8), "batch_index": [2]}
    with pytest.raises(ValueError, match="holds 3 pictures and there is noise for 1"):
        least.sample(least.patch(), latent=latent)


# --- Rows ----------------------------------------------------------------------------------------


def couple(model: ModelPatcher, regions: int, order: str = "repeat") -> ModelPatcher:
    """Attention couple and its kind: positive rows once per region, folded behind the attention."""
    model, seen = model.clone(), {}

    def copies(kind: int) -> int:
        return regions if kind == 0 else 1

    def spread(x: Tensor, n: int) -> Tensor:
        return x.repeat(n, 1, 1) if order == "repeat" else x.repeat_interleave(n, 0)

    def before(q: Tensor, k: Tensor, v: Tensor, options: Any) -> tuple[Tensor, ...]:
        kinds = options["cond_or_uncond"]
        chunks = [x.chunk(len(kinds)) for x in (q, k, v)]
        seen["rows"] = [len(chunks[0][i]) * copies(kind) for i, kind in enumerate(kinds)]
        return tuple(
            torch.cat([spread(x[i], copies(kind)) for i, kind in enumerate(kinds)]) for x in chunks
        )

    def fold(part: Tensor, kind: int) -> Tensor:
        n = copies(kind)
        shape, axis = ((n, -1), 0) if order == "repeat" else ((-1, n), 1)
        return part.unflatten(0, shape).mean(axis)

    def after(out: Tensor, options: Any) -> Tensor:
        parts = zip(out.split(seen["rows"]), options["cond_or_uncond"], strict=True)
        return torch.cat([fold(part, kind) for part, kind in parts])

    model.set_model_attn2_patch(before)
    model.set_model_attn2_output_patch(after)
    return model


@pytest.mark.parametrize("order", ["repeat", "interleave"])
@pytest.mark.parametrize("regions", [2, 3])
@pytest.mark.parametrize("batch", by_day([1, 2], [2]))
@pytest.mark.parametrize("setting", ["off", "mixed"])
def test_equal_regions_change_nothing(
    least: World, setting: str, batch: int, regions: int, order: str
) -> None:
    model = least.patch(setting=setting, mask=half_mask())
    how = {"steps": 2, "latent": empty(batch)}
    picture = least.sample(couple(model, regions, order), **how)
    assert difference(picture, least.sample(model, **how)) < ROUNDING


def test_regions_with_savings_and_two_people(least: World) -> None:
    model = least.patch(mask=half_mask(), style_in_cross_attention=True)
    model = apply(model, Application(least.other, mask=half_mask("right")))
    for savings in (EVERY_2ND, Savings(guided=False), Savings(shared=True)):
        saved = save_time(model, savings)
        assert difference(least.sample(couple(saved, 2)), least.sample(saved)) < ROUNDING


def test_rows_that_nobody_can_know_are_refused(least: World) -> None:
    """A patch that makes other queries of them instead of repeating them."""
    model = least.patch()

    def blend(q: Tensor, k: Tensor, v: Tensor, _: Any) -> tuple[Tensor, ...]:
        return tuple(torch.cat([x, x.mean(0, keepdim=True)]) for x in (q, k, v))

    model.set_model_attn2_patch(blend)
    model.set_model_attn2_output_patch(lambda out, _: out[:-1])
    with pytest.raises(ValueError, match="whose they are cannot be known"):
        least.sample(model)


def test_rows_added_to_the_self_attention_are_refused(least: World) -> None:
    model = least.patch()
    model.set_model_attn1_patch(lambda q, k, v, _: tuple(x.repeat(3, 1, 1) for x in (q, k, v)))
    model.set_model_attn1_output_patch(lambda out, _: out.chunk(3)[0])
    with pytest.raises(ValueError, match="whose they are is unknown"):
        least.sample(model)


def cut_tiles(model: ModelPatcher, dim: int, overlap: int = 0) -> ModelPatcher:
    """A wrapper that runs the model on two tiles, as MultiDiffusion and its kin do."""
    model = model.clone()

    def run(apply_model: Any, args: dict[str, Any]) -> Tensor:
        x = args["input"]
        half = x.shape[dim] // 2
        first = x.narrow(dim, 0, half + overlap), x.narrow(dim, half - overlap, half + overlap)
        a, b = (apply_model(part, args["timestep"], **args["c"]) for part in first)
        return torch.cat([a.narrow(dim, 0, half), b.narrow(dim, overlap, half)], dim)

    model.set_model_unet_function_wrapper(run)
    return model


@pytest.mark.parametrize(("dim", "overlap"), [(3, 0), (2, 0), (3, 2)])
@pytest.mark.parametrize("savings", [Savings(), EVERY_2ND, Savings(shared=True)], ids=str)
def test_a_mask_follows_tiles(least: World, dim: int, overlap: int, savings: Savings) -> None:
    """Outside its mask the person adds nothing, tile by tile; without mixing exactly nothing."""
    if savings.shared:
        savings = Savings()  # one stream has no latents to share
    model = save_time(least.patch(setting="off", mask=half_mask()), savings)
    ours = least.sample(cut_tiles(model, dim, overlap))
    plain = least.sample(cut_tiles(least.model, dim, overlap))
    if dim == 3 and not overlap:
        assert difference(ours[..., 8:], plain[..., 8:]) < ROUNDING
    assert difference(ours[..., :8], plain[..., :8]) > 0.05


@pytest.mark.parametrize("savings", [Savings(), EVERY_2ND, Savings(shared=True)], ids=str)
def test_both_streams_in_tiles(least: World, savings: Savings) -> None:
    """Weight 0 is the unpatched model in tiles, and each tile has its own features."""
    nobody = save_time(least.patch(0.0, mask=half_mask()), savings)
    plain = least.sample(cut_tiles(least.model, 3), steps=2)
    assert difference(least.sample(cut_tiles(nobody, 3), steps=2), plain) < (
        ROUNDING if savings.every == 1 else 0.05
    )


def test_a_tile_that_is_not_in_the_latent_is_refused(least: World) -> None:
    model = least.patch(mask=half_mask())

    def run(apply_model: Any, args: dict[str, Any]) -> Tensor:
        x = args["input"]
        small = torch.nn.functional.interpolate(x, scale_factor=0.5)
        out = apply_model(small, args["timestep"], **args["c"])
        return torch.nn.functional.interpolate(out, scale_factor=2)

    model.set_model_unet_function_wrapper(run)
    with pytest.raises(ValueError, match="a mask cannot follow"):
        least.sample(model)


def use_windows(model: ModelPatcher, length: int, dim: int = 0) -> ModelPatcher:
    windows = pytest.importorskip("comfy_extras.nodes_context_windows", reason="a newer host's")
    node = windows.ContextWindowsManualNode
    return node.execute(
        model, length, 0, "standard_static", 1, False, "pyramid", dim, False
    ).result[0]


@pytest.mark.parametrize("setting", ["off", "mixed"])
@pytest.mark.parametrize("frame", [0, 2, 3])
def test_each_frame_keeps_its_mask_in_windows(least: World, frame: int, setting: str) -> None:
    masks = torch.zeros(4, 16, 16)
    masks[frame] = 1

    def draw(mask: Tensor) -> Tensor:
        model = use_windows(least.patch(1.0, setting, mask=mask), 2)
        return least.sample(model, latent=empty(4), steps=2)

    with_person, without = draw(masks), draw(masks * 0)
    moved = [i for i in range(4) if difference(with_person[i], without[i]) > 1e-3]
    assert moved == [frame]


@pytest.mark.parametrize("dim", [2, 3])
def test_a_mask_in_windows_of_the_picture(least: World, dim: int) -> None:
    """Windows along the height or width are parts of one picture, and of its mask."""
    mask = half_mask()
    mask[..., 6:8] = 0  # the host shows a window the last line of the one before it
    mask = mask if dim == 3 else mask.mT
    model = use_windows(least.patch(1.0, "off", mask=mask), 8, dim)
    plain = use_windows(least.model, 8, dim)
    ours, theirs = (least.sample(m, steps=1) for m in (model, plain))
    inside, outside = ours.unflatten(dim, (2, 8)).unbind(dim)
    inside_plain, outside_plain = theirs.unflatten(dim, (2, 8)).unbind(dim)
    assert difference(outside, outside_plain) < ROUNDING
    assert difference(inside, inside_plain) > 0.05


def by_pieces(keep_names: bool) -> Callable[[ModelPatcher], ModelPatcher]:
    """A wrapper that runs latents one by one; a careless one hands on what it knows alone."""

    def patch(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()

        def run(apply_model: Any, args: dict[str, Any]) -> Tensor:
            c = args["c"]
            known = c if keep_names else {k: v for k, v in c.items() if k != "infinite_id_rows"}
            parts = []
            for row in range(len(args["input"])):
                one = slice(row, row + 1)
                cut = {k: v[one] if isinstance(v, Tensor) else v for k, v in known.items()}
                parts.append(apply_model(args["input"][one], args["timestep"][one], **cut))
            return torch.cat(parts)

        model.set_model_unet_function_wrapper(run)
        return model

    return patch


@pytest.mark.parametrize("setting", ["off", "mixed"])
def test_masks_in_pieces_of_the_batch(least: World, setting: str) -> None:
    masks = torch.stack([half_mask()[0], half_mask("right")[0], torch.zeros(16, 16)])
    model = save_time(least.patch(1.0, setting, mask=masks), Savings(shared=True))
    how = {"latent": empty(3), "cfg": 1.0}
    expected = least.sample(model, **how)
    assert difference(least.sample(by_pieces(True)(model), **how), expected) < ROUNDING
    with pytest.raises(ValueError, match="does not say which"):
        least.sample(by_pieces(False)(model), **how)
    one_mask = save_time(least.patch(1.0, setting, mask=half_mask()), Savings(shared=True))
    pieces = least.sample(by_pieces(False)(one_mask), **how)
    assert difference(pieces, least.sample(one_mask, **how)) < ROUNDING


def chunk_by_chunk(model: ModelPatcher) -> ModelPatcher:
    """A wrapper that runs one cond after the other, and leaves `uuids` as they were."""
    model = model.clone()

    def run(apply_model: Any, args: dict[str, Any]) -> Tensor:
        kinds = args["c"]["transformer_options"]["cond_or_uncond"]
        parts = []
        for i, kind in enumerate(kinds):
            c = {
                k: v.chunk(len(kinds))[i] if isinstance(v, Tensor) else v
                for k, v in args["c"].items()
            }
            options = {**args["c"]["transformer_options"], "cond_or_uncond": [kind]}
            c["transformer_options"] = options
            x, t = (args[name].chunk(len(kinds))[i] for name in ("input", "timestep"))
            parts.append(apply_model(x, t, **c))
        return torch.cat(parts)

    model.set_model_unet_function_wrapper(run)
    return model


@pytest.mark.parametrize("savings", [Savings(), EVERY_2ND], ids=str)
@pytest.mark.parametrize("mask", [None, half_mask()], ids=["everywhere", "left"])
def test_one_cond_after_the_other(least: World, mask: Tensor | None, savings: Savings) -> None:
    areas = nodes.ConditioningSetArea().append(least.middle, 64, 64, 0, 64, 1.0)[0]
    prompt = nodes.ConditioningCombine().combine(least.positive, areas)[0]
    for positive in (least.positive, prompt):
        model = save_time(least.patch(mask=mask), savings)
        how = {"steps": 6, "positive": positive}
        picture = least.sample(chunk_by_chunk(model), **how)
        assert difference(picture, least.sample(model, **how)) < ROUNDING


# --- Windows in time -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"end": 0.5}, [4] * 4 + [2] * 4),
        ({"start": 0.5}, [4] * 8),
        ({"start": 0.25, "end": 0.5}, [4] * 4 + [2] * 4),
    ],
)
def test_nobody_reads_outside_the_window(
    least: World, changes: dict[str, float], rows: list[int]
) -> None:
    """The text stream runs until the last one has read it, and no longer."""
    with count_rows(least) as found:
        picture = least.sample(least.patch(**changes), steps=STEPS)
    assert found == rows
    if changes == {"end": 0.5}:
        until = least.sample(save_time(least.patch(end=0.5), Savings(until=0.5)), steps=STEPS)
        assert torch.equal(picture, until)


def test_two_people_one_after_the_other(least: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that lies where the one ends and the other begins is the second one's."""
    model = least.patch(end=0.5)
    model = apply(model, Application(least.other, start=0.5))
    acting: list[list[int]] = []
    begin = sampling._begin

    def note(run: Run, *args: Any) -> Any:
        evaluation = begin(run, *args)
        acting.append([run.people.index(person) for person in evaluation.acting.people])
        return evaluation

    monkeypatch.setattr(sampling, "_begin", note)
    middle = float(least.model.get_model_object("model_sampling").percent_to_sigma(0.5))
    go(least, model, sampler(lambda denoise, x, *_: denoise(x, x.new_tensor(middle))), steps=1)
    assert acting == [[1]]
    acting.clear()
    go(least, model, sampler(euler))
    assert all(len(people) == 1 for people in acting)


def test_a_person_alone_behind_another_who_mixes(least: World) -> None:
    """Who decides changes with time: the text stream runs as long as somebody reads it."""
    model = least.patch(end=0.5)
    model = apply(model, Application(least.other, start=0.25, mixing=Mixing.OFF))
    with count_rows(least) as rows:
        least.sample(model, steps=STEPS)
    assert rows == [4] * 2 + [2] * 6


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("setting", by_day(["off", "mixed", "AdaIN-mean"], ["AdaIN-mean"]))
def test_a_run_cut_in_two(
    least: World, setting: str, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The second part goes on with both streams' latents."""
    node = nodes.KSamplerAdvanced()
    common = (SEED, 10, 5.0, "euler", "normal", least.positive, least.negative)

    def cut(model: ModelPatcher, second: ModelPatcher | None = None) -> Tensor:
        with torch.inference_mode():
            (first,) = node.sample(model, "enable", *common, empty(batch), 0, 5, "enable")
            (done,) = node.sample(second or model, "disable", *common, first, 5, 10000, "disable")
        return done["samples"]

    model = least.patch(setting=setting)
    whole = least.sample(model, steps=10, latent=empty(batch))
    assert difference(cut(model), whole) < ROUNDING
    other = model.clone()  # such as behind a LoRA
    assert difference(cut(model, other), whole) < ROUNDING
    assert "cannot be shared" not in caplog.text
    assert difference(cut(least.patch(0.0, setting)), cut(least.model)) < ROUNDING


def test_a_run_that_goes_on_from_somewhere_else(
    least: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A latent that was changed in between: the log says what the text stream starts from."""
    node, model = nodes.KSamplerAdvanced(), least.patch()
    common = (SEED, 10, 5.0, "euler", "normal", least.positive, least.negative)
    with torch.inference_mode(), caplog.at_level(logging.INFO):
        (first,) = node.sample(model, "enable", *common, empty(), 0, 5, "enable")
        changed = {"samples": 1.01 * first["samples"]}
        node.sample(model, "disable", *common, changed, 5, 10000, "disable")
    assert "the text stream starts from that latent, too" in caplog.text


def invert(world: World, model: ModelPatcher) -> Tensor:
    """From a clean picture to noise, by the stock nodes: flipped noise levels, none added."""
    flipped = custom.FlipSigmas.execute(sigmas(model, STEPS)).result[0]
    return sample_on(world, model, flipped, painted())


def sample_on(world: World, model: ModelPatcher, levels: Tensor, latent: Latent) -> Tensor:
    """Sample without noise of its own."""
    nothing, euler = custom.DisableNoise.execute().result[0], comfy.samplers.sampler_object("euler")
    guide = guider(model, world.positive, world.negative, 1.0)
    with torch.inference_mode():
        done = custom.SamplerCustomAdvanced.execute(nothing, guide, euler, levels, latent)
    return done.result[0]["samples"]


@pytest.mark.parametrize("savings", [Savings(), EVERY_2ND, Savings(until=0.5)], ids=str)
def test_a_clean_picture_has_no_text_stream_to_miss(
    least: World, savings: Savings, caplog: pytest.LogCaptureFixture
) -> None:
    """Both streams begin with it, as they must; on the way back they go on with what each has."""
    with caplog.at_level(logging.INFO):
        noise = invert(least, save_time(least.patch(), savings))
    assert "text stream" not in caplog.text
    assert torch.isfinite(noise).all()
    nobody = save_time(least.patch(0.0), savings)
    assert difference(invert(least, nobody), invert(least, least.model)) < ROUNDING


def test_there_and_back_again(least: World, caplog: pytest.LogCaptureFixture) -> None:
    def go_round(model: ModelPatcher) -> Tensor:
        noise = {"samples": invert(least, model)}
        return sample_on(least, model, sigmas(model, STEPS), noise)

    with caplog.at_level(logging.INFO):
        ours = go_round(least.patch(0.0))
    assert "text stream" not in caplog.text
    assert difference(ours, go_round(least.model)) < ROUNDING


def test_a_part_in_which_nobody_reads_the_text_stream_misses_none(
    least: World, caplog: pytest.LogCaptureFixture
) -> None:
    node = nodes.KSamplerAdvanced()
    common = (SEED, 10, 5.0, "euler", "normal", least.positive, least.negative)
    model = save_time(least.patch(), Savings(until=0.3))
    with torch.inference_mode(), caplog.at_level(logging.INFO):
        (first,) = node.sample(model, "enable", *common, empty(), 0, 5, "enable")
        node.sample(model, "disable", *common, first, 5, 10000, "disable")
    assert "text stream" not in caplog.text

"""The UNet's outermost level alone, on deep features of an earlier step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import comfy.samplers
import pytest
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.application import Application
from pack.infinite_id.host.deep import DeepFeatures, Kept
from pack.infinite_id.host.keys import SAVINGS
from pack.infinite_id.host.patch import apply, save_time
from pack.infinite_id.identities import mixing
from pack.infinite_id.savings import FEW, PRESETS, Preset, Savings
from pack.nodes.save_time import SaveTime
from pack.tests.host.test_exactness import ROUNDING, SCHEDULERS, SMALL, TOLERANCES
from pack.tests.host.test_pairs import PROMPTS
from pack.tests.host.test_stock_nodes import PATCHES, stock
from pack.tests.host.world import SETTINGS, World, by_day, difference, empty, sigmas
from torch import Tensor

STEPS = 6
DAILY_SAMPLERS = (
    *("euler", "heun", "dpm_2_ancestral", "dpmpp_2m", "dpmpp_sde", "dpmpp_3m_sde", "ddim"),
    *("uni_pc", "res_multistep", "lcm"),
)


@contextmanager
def watch_levels(world: World) -> Iterator[list[tuple[int, bool]]]:
    """Of each forward of the UNet: its rows, and whether its deeper blocks ran."""
    seen: list[tuple[int, bool]] = []

    def note(_: Any, inputs: tuple[Tensor, ...]) -> None:
        seen.append((len(inputs[0]), False))

    def note_deep(*_: Any) -> None:
        seen[-1] = (seen[-1][0], True)

    hooks = [
        world.unet.input_blocks[0][0].register_forward_pre_hook(note),
        world.unet.middle_block[0].register_forward_hook(note_deep),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def watch(world: World, model: ModelPatcher, **how: Any) -> list[tuple[int, bool]]:
    with watch_levels(world) as seen:
        world.sample(model, steps=STEPS, **how)
    return seen


FULL, SHALLOW = True, False


@pytest.mark.parametrize("cfg", [1.0, 5.0])
@pytest.mark.parametrize("deep", [2, 3])
def test_deeper_blocks_run_at_every_so_manyth_step(tiny: World, deep: int, cfg: float) -> None:
    chunks = 2 if cfg > 1 else 1
    turns = [step % deep == 0 for step in range(STEPS)]
    both = [(2 * chunks, is_full) for is_full in turns]
    assert watch(tiny, save_time(tiny.patch(), Savings(deep=deep)), cfg=cfg) == both
    alone = [(chunks, is_full) for is_full in turns]
    assert watch(tiny, save_time(tiny.patch(setting="off"), Savings(deep=deep)), cfg=cfg) == alone
    assert watch(tiny, save_time(tiny.model, Savings(deep=deep)), cfg=cfg) == alone


@pytest.mark.parametrize("sampler", by_day(comfy.samplers.SAMPLER_NAMES, DAILY_SAMPLERS))
def test_weight_0_is_the_plain_model_that_saves_as_much(least: World, sampler: str) -> None:
    savings = Savings(deep=2)
    how: dict[str, Any] = {"sampler": sampler, "steps": 4, "latent": empty(2, *SMALL)}
    how["scheduler"] = SCHEDULERS.get(sampler, "normal")
    plain = least.sample(save_time(least.model, savings), **how)
    assert difference(plain, least.sample(least.model, **how)) > ROUNDING
    limit, _ = TOLERANCES.get(sampler, (ROUNDING, ""))
    for setting in SETTINGS:
        ours = least.sample(save_time(least.patch(0.0, setting), savings), **how)
        assert difference(ours, plain) < limit


# --- By hand -------------------------------------------------------------------------------------


@contextmanager
def keep_by_hand(world: World, deep: int) -> Iterator[None]:
    """What the last of the deeper blocks gives is put in from a step in full; all blocks run.

    Features are found by the noise level and by how many forwards there were at it.
    """
    unet: Any = world.unet
    level, call, last = -1, 0, float("inf")
    kept: dict[int, Tensor] = {}

    def enter(_: Any, inputs: tuple[Tensor, ...], __: Any) -> None:
        nonlocal level, call, last
        step = float(inputs[1][0])
        level, call, last = (level, call + 1, step) if step == last else (level + 1, 0, step)

    def hand_up(_: Any, __: Any, out: Tensor) -> Tensor:
        if level % deep == 0:
            kept[call] = out.clone()
        return kept[call].clone()

    last_deeper = unet.output_blocks[-unet.num_res_blocks[0] - 2][-1]
    hooks = [
        unet.register_forward_pre_hook(enter, with_kwargs=True),
        last_deeper.register_forward_hook(hand_up),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# Those that keep what a forward gave, with which nothing is saved; one that draws in deeper blocks,
# and one that makes the outermost level's features smaller up to some step.
OTHERWISE = {"EasyCache", "LazyCache", "SAG", "HyperTile", "deep shrink"}


@pytest.mark.parametrize("setting", by_day([None, "off", "AdaIN-mean"], ["AdaIN-mean"]))
@pytest.mark.parametrize("name", ["", *(name for name in PATCHES if name not in OTHERWISE)])
def test_with_any_patch_the_features_are_those_put_in_by_hand(
    tiny: World, name: str, setting: str | None
) -> None:
    """Also of nodes whose patches act in deeper blocks, such as FreeU and PAG."""
    model = tiny.model if setting is None else tiny.patch(setting=setting)
    model = PATCHES[name](model) if name else model
    ours = tiny.sample(save_time(model, Savings(deep=2)))
    with keep_by_hand(tiny, 2):
        expected = tiny.sample(model)
    assert difference(ours, expected) < ROUNDING
    assert difference(ours, tiny.sample(model)) > ROUNDING


@pytest.mark.parametrize("name", ["EasyCache", "LazyCache", "SAG"])
def test_a_node_that_keeps_a_forward_is_told_of(
    tiny: World, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = PATCHES[name](tiny.patch())
    saved = tiny.sample(save_time(model, Savings(deep=2)))
    assert "saves nothing in this run" in caplog.text
    assert torch.equal(saved, tiny.sample(model))


def test_the_outermost_level_of_another_size_is_a_step_in_full(tiny: World) -> None:
    """Deep shrink makes it smaller in the first half: the first step at full size finds nothing."""
    node = "PatchModelAddDownscale"
    shrink = stock("model_downscale", node, 1, 2.0, 0.0, 0.45, False, "bicubic", "bicubic")
    model = save_time(shrink(tiny.patch()), Savings(deep=2))
    levels = watch(tiny, model, latent=empty(1, 32, 32))
    begun_in_vain = [(4, SHALLOW), (4, FULL)]
    pair = [(4, FULL), (4, SHALLOW)]
    assert levels == [*pair, (4, FULL), *begun_in_vain, *pair]


def find_changes(world: World, start: float, end: float) -> list[int]:
    """The steps at which something begins and ceases that acts from one share to the other."""
    sampling = world.model.get_model_object("model_sampling")
    first, last = (float(sampling.percent_to_sigma(share)) for share in (start, end))
    acts = [last < float(sigma) <= first for sigma in sigmas(world.model, STEPS)[:-1]]
    changes = [step for step in range(1, STEPS) if acts[step] != acts[step - 1]]
    assert len(changes) == 2
    return changes


def test_a_step_at_which_others_act_is_a_step_in_full(tiny: World) -> None:
    """Somebody who acts between two steps in full is drawn all the same."""
    changes = find_changes(tiny, 0.2, 0.6)
    model = save_time(tiny.patch(start=0.2, end=0.6), Savings(deep=8))
    levels = watch(tiny, model)
    assert [step for step, (_, is_full) in enumerate(levels) if is_full] == [0, *changes]


def test_the_order_of_the_nodes_does_not_matter(tiny: World) -> None:
    savings = Savings(deep=2)
    before = apply(save_time(tiny.model, savings), Application(tiny.identity))
    behind = save_time(tiny.patch(), savings)
    assert torch.equal(tiny.sample(before), tiny.sample(behind))


def test_a_sweep_and_several_people(tiny: World) -> None:
    people = [tiny.identity, tiny.other]
    mask = torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    sweep = apply(tiny.model, Application(mixing.interpolate(people, [0.0, 0.5, 1.0])))
    both = apply(tiny.patch(mask=mask), Application(tiny.other, mask=1 - mask))
    for model in (sweep, both):
        ours = tiny.sample(save_time(model, Savings(deep=2)), latent=empty(2))
        with keep_by_hand(tiny, 2):
            assert difference(ours, tiny.sample(model, latent=empty(2))) < ROUNDING


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts(tiny: World, prompt: str) -> None:
    """Weight 0 is the plain model; a prompt that comes late is drawn in full when it comes."""
    how: dict[str, Any] = {"positive": PROMPTS[prompt](tiny), "steps": STEPS}
    savings = Savings(deep=3)
    plain = tiny.sample(save_time(tiny.model, savings), **how)
    assert difference(tiny.sample(save_time(tiny.patch(0.0), savings), **how), plain) < ROUNDING
    if "schedule" not in prompt:
        with keep_by_hand(tiny, 3):
            assert difference(tiny.sample(tiny.model, **how), plain) < ROUNDING


def test_both_prompts_alike(tiny: World) -> None:
    """One text row for both conds, also where the host deals them out differently."""
    how: dict[str, Any] = {"negative": tiny.positive}
    ours = tiny.sample(save_time(tiny.patch(), Savings(deep=2)), **how)
    with keep_by_hand(tiny, 2):
        assert difference(ours, tiny.sample(tiny.patch(), **how)) < ROUNDING
    rows = watch(tiny, save_time(tiny.patch(), Savings(deep=2)), **how)
    assert rows == [(3, FULL), (3, SHALLOW)] * 3


@pytest.mark.parametrize("is_alike", [True, False])
def test_a_forward_for_each_cond_or_one_for_all(
    tiny: World, monkeypatch: pytest.MonkeyPatch, is_alike: bool
) -> None:
    """As memory gets short or free again, the host runs conds apart or together."""
    how: dict[str, Any] = {"negative": tiny.positive} if is_alike else {}
    model = save_time(tiny.patch(), Savings(deep=2))
    expected = tiny.sample(model, **how)
    calls = iter(range(1000))
    free = model_management.get_free_memory

    def get_free_memory(*args: Any, **kwargs: Any) -> Any:
        return 0 if next(calls) % 2 else free(*args, **kwargs)

    monkeypatch.setattr(model_management, "get_free_memory", get_free_memory)
    with watch_levels(tiny) as seen:
        ours = tiny.sample(model, **how)
    assert len({rows for rows, _ in seen}) > 1
    assert not all(is_full for _, is_full in seen)
    assert difference(ours, expected) < ROUNDING


@pytest.mark.parametrize("every", [1, 2, 3])
def test_text_every_counts_the_steps_in_full(tiny: World, every: int) -> None:
    model = save_time(tiny.patch(), Savings(every=every, deep=2))
    with watch_levels(tiny) as seen:
        tiny.sample(model, steps=2 * 4)
    rows = [4 if turn % every == 0 else 2 for turn in range(4)]
    assert seen == [(count, is_full) for count in rows for is_full in (FULL, SHALLOW)]


# --- Pieces --------------------------------------------------------------------------------------


def cut_tiles(model: ModelPatcher, places: Callable[[], list[tuple[int, int]]]) -> ModelPatcher:
    """Tiles of 8x8 of the latent, one forward each, at these places of their corners."""

    def run(apply_model: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        x = given["input"]
        out = torch.zeros_like(x)
        for top, left in places():
            tile = (..., slice(top, top + 8), slice(left, left + 8))
            out[tile] = apply_model(x[tile], given["timestep"], **given["c"])
        return out

    cut = model.clone()
    cut.set_model_unet_function_wrapper(run)
    return cut


FIXED = [(0, 0), (0, 8), (8, 0), (8, 8)]


def test_tiles_that_stay_where_they_are(tiny: World) -> None:
    model = cut_tiles(tiny.patch(), lambda: FIXED)
    ours = tiny.sample(save_time(model, Savings(deep=2)))
    with keep_by_hand(tiny, 2):
        assert difference(ours, tiny.sample(model)) < ROUNDING


def test_tiles_that_move_are_drawn_in_full(tiny: World) -> None:
    """By turns in another order, of which the number of a forward says nothing."""
    moved = [FIXED, FIXED[::-1], FIXED[1:] + FIXED[:1]]

    def draw(savings: Savings) -> Tensor:
        turns = iter(moved * 20)
        return tiny.sample(save_time(cut_tiles(tiny.patch(), lambda: next(turns)), savings))

    assert difference(draw(Savings(deep=2)), draw(Savings())) < ROUNDING


# --- What is kept --------------------------------------------------------------------------------


def test_the_unet_runs_in_full_where_another_node_runs_it(
    tiny: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = save_time(tiny.patch(), Savings(deep=2))
    expected = tiny.sample(tiny.patch())
    monkeypatch.setattr(tiny.unet, "forward", partial(tiny.unet.forward))
    assert torch.equal(tiny.sample(model), expected)
    assert "deep_every saves nothing here" in caplog.text


def note_memory(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[float]]:
    """Bytes of the features after each step that keeps some, and what the host is asked for."""
    kept: list[int] = []
    asked: list[float] = []
    keep, load = DeepFeatures.keep, model_management.load_models_gpu

    def note(deep: DeepFeatures, one: Kept) -> None:
        keep(deep, one)
        kept.append(deep.nbytes)

    def ask(*args: Any, **kwargs: Any) -> None:
        asked.append(kwargs["minimum_memory_required"])
        load(*args, **kwargs)

    monkeypatch.setattr(DeepFeatures, "keep", note)
    monkeypatch.setattr(model_management, "load_models_gpu", ask)
    return kept, asked


def test_the_host_is_told_what_is_kept(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 rows of 32 x 2 channels at the latent's size, in float32; no more are kept."""
    kept, asked = note_memory(monkeypatch)
    for savings in (Savings(), Savings(deep=2)):
        tiny.sample(save_time(tiny.patch(), savings))
    stated = 4 * 64 * 16 * 16 * 4
    assert set(kept) == {stated}
    line = tiny.model.model.memory_required([2, 4, 1, 16])
    before, after = asked
    assert stated <= after - before < stated + line


def test_another_kind_of_model_is_refused(tiny: World) -> None:
    other = tiny.model.clone()
    other.model = copy.copy(tiny.model.model)
    other.model._modules = {**other.model._modules, "diffusion_model": torch.nn.Identity()}
    with pytest.raises(ValueError, match="Infinite-ID"):
        save_time(other, Savings(deep=2))


# --- The node ------------------------------------------------------------------------------------


def save(model: ModelPatcher, *widgets: Any) -> ModelPatcher:
    return SaveTime.execute(model, *widgets).result[0]


def read_savings(model: ModelPatcher) -> Savings:
    return model.model_options["transformer_options"][SAVINGS]


def test_a_workflow_from_before_saves_what_it_did(tiny: World) -> None:
    model = save(tiny.model, 2, 0.5, False, True)
    assert read_savings(model) == Savings(2, 0.5, False, True)


def test_presets(tiny: World) -> None:
    """What is set beside them counts with 'custom' alone, but for shared latents and memory."""
    found = {
        preset: read_savings(save(tiny.model, 3, 0.5, False, False, 4, preset.value))
        for preset in Preset
    }
    assert found == {**PRESETS, Preset.CUSTOM: Savings(3, 0.5, False, deep=4)}
    kept = read_savings(save(tiny.model, 3, 0.5, False, False, 4, "faithful", 2.0, 0.9))
    assert kept == replace(PRESETS[Preset.FAITHFUL], remember=2.0)
    custom = read_savings(save(tiny.model, 1, 1.0, True, False, 3, "custom", 2.0, 0.9, 0.2))
    assert custom == Savings(deep=3, change=0.2, agree=0.9, remember=2.0)
    shared = save(tiny.model, 2, 1.0, True, True, 1, "fast")
    assert torch.equal(tiny.sample(shared), tiny.sample(tiny.model))


@pytest.mark.parametrize("steps", [FEW, FEW + 1])
@pytest.mark.parametrize("setting", [None, "mixed"])
def test_presets_spare_samplings_of_few_steps(tiny: World, steps: int, setting: str | None) -> None:
    model = tiny.model if setting is None else tiny.patch(setting=setting)
    with watch_levels(tiny) as seen:
        tiny.sample(save(model, 2, 1.0, True, False, 1, "fast"), steps=steps)
    turns = [steps == FEW or step % 2 == 0 for step in range(steps)]
    assert [is_full for _, is_full in seen] == turns

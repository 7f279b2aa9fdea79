"""The text stream, remembered: what is recalled is what was kept, and nothing else is recalled."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import comfy.samplers
import nodes
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.application import Application
from pack.infinite_id.attention.mixed import Mixing, Style
from pack.infinite_id.host.archive import GIGABYTE, Archive, Record
from pack.infinite_id.host.forward import Forward
from pack.infinite_id.host.keys import ARCHIVE
from pack.infinite_id.host.patch import apply, save_time
from pack.infinite_id.host.text_stream import TextRows
from pack.infinite_id.identities import mixing
from pack.infinite_id.savings import Savings
from pack.infinite_id.staged_identity.host_apply import apply_staged
from pack.tests.host.test_control import control, draw_hint, make_control_net
from pack.tests.host.test_exactness import ROUNDING, SCHEDULERS, TOLERANCES
from pack.tests.host.test_pairs import PROMPTS
from pack.tests.host.test_savings import watch_inputs
from pack.tests.host.test_stock_nodes import PATCHES, change_weights
from pack.tests.host.world import SEED, World, by_day, difference, empty, painted
from torch import Tensor

if TYPE_CHECKING:
    from pack.tests.host.conftest import Loader

STEPS = 4
SMALL = {"latent": empty(1, 8, 8), "steps": STEPS}
EXACT = 1e-9  # relative, with the model in float64
NIGHTLY = ("euler", "dpmpp_2m_sde", "heun", "euler_ancestral", "ddim", "lcm", "uni_pc")

HALF = torch.zeros(1, 16, 16)
HALF[..., :8] = 1


@pytest.fixture(scope="module")
def world(worlds: Loader) -> World:
    return worlds("least", torch.float64)


def remember(model: ModelPatcher, gigabytes: float = 1.0, **savings: Any) -> ModelPatcher:
    """The model behind the node, before any person: what is remembered hangs on it."""
    return save_time(model, Savings(remember=gigabytes, **savings))


def archive_of(model: ModelPatcher) -> Archive:
    archive: Archive = model.model_options["transformer_options"][ARCHIVE]
    return archive


def put_on(world: World, model: ModelPatcher, other: bool = False, **how: Any) -> ModelPatcher:
    return apply(model, Application(world.other if other else world.identity, **how))


def count_rows(world: World, model: ModelPatcher, **how: Any) -> list[int]:
    with watch_inputs(world) as seen:
        world.sample(model, **{**SMALL, **how})
    return [len(rows) for rows in seen]


def draws_alone(world: World, model: ModelPatcher, **how: Any) -> bool:
    """Whether no forward has text rows; `model` has one person, one latent, and guidance."""
    return set(count_rows(world, model, **how)) == {2}


# --- What changes nothing for the text stream ----------------------------------------------------

CHANGES: dict[str, dict[str, Any]] = {
    "person": {"other": True},
    "weight": {"weight": 0.4},
    "mask": {"mask": HALF},
    "style": {"style": Style.ADAIN_MEAN},
    "start": {"start": 0.3},
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_picture_is_that_of_both_streams(world: World, change: str) -> None:
    model = remember(world.model)
    first = world.sample(put_on(world, model), **SMALL)
    assert torch.equal(first, world.sample(put_on(world, world.model), **SMALL))
    assert draws_alone(world, put_on(world, model, **CHANGES[change]))
    ours = world.sample(put_on(world, model, **CHANGES[change]), **SMALL)
    expected = world.sample(put_on(world, world.model, **CHANGES[change]), **SMALL)
    assert difference(ours, expected) < EXACT
    assert difference(ours, first) > ROUNDING


@pytest.mark.parametrize("sampler", by_day(comfy.samplers.SAMPLER_NAMES, NIGHTLY))
def test_every_sampler(world: World, sampler: str) -> None:
    how = {**SMALL, "sampler": sampler, "scheduler": SCHEDULERS.get(sampler, "normal")}
    model = remember(world.model)
    world.sample(put_on(world, model), **how)
    ours = world.sample(put_on(world, model, other=True), **how)
    expected = world.sample(put_on(world, world.model, other=True), **how)
    limit, _ = TOLERANCES.get(sampler, (EXACT, ""))
    assert difference(ours, expected) < limit
    assert draws_alone(world, put_on(world, model), **how) == (sampler not in TOLERANCES)


def test_what_is_recalled_is_what_was_kept(least: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Forward.read_text
    seen: list[tuple[TextRows, Any, Tensor, Tensor]] = []

    def note(forward: Forward, block: Any, k: Tensor, v: Tensor, k_id: Tensor) -> Any:
        found = read(forward, block, k, v, k_id)
        seen.append((forward.evaluation.text_rows, block, *(x.clone() for x in found)))
        return found

    monkeypatch.setattr(Forward, "read_text", note)
    model = remember(least.model)
    for other in (False, True):
        least.sample(put_on(least, model, other=other), **SMALL)
    kept, recalled = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert {rows for rows, *_ in kept} == {TextRows.IN_BATCH}
    assert {rows for rows, *_ in recalled} == {TextRows.RECALLED}
    for (_, block, *a), (_, there, *b) in zip(kept, recalled, strict=True):
        assert block == there
        assert all(map(torch.equal, a, b))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts(world: World, prompt: str) -> None:
    how = {**SMALL, "positive": PROMPTS[prompt](world)}
    model = remember(world.model)
    world.sample(put_on(world, model), **how)
    with watch_inputs(world) as seen:
        ours = world.sample(put_on(world, model, other=True), **how)
    with watch_inputs(world) as both:
        expected = world.sample(put_on(world, world.model, other=True), **how)
    assert difference(ours, expected) < EXACT
    assert sum(map(len, seen)) < sum(map(len, both))


def test_a_sweep_reads_what_one_person_left(world: World) -> None:
    model, people = remember(world.model), [world.identity, world.other]
    how = {**SMALL, "latent": empty(2, 8, 8)}
    sweep = Application(mixing.interpolate(people, [0.0, 0.5, 1.0]))
    world.sample(put_on(world, model), **how)
    assert set(count_rows(world, apply(model, sweep), **how)) == {12}  # three, two latents, conds
    ours = world.sample(apply(model, sweep), **how)
    assert difference(ours, world.sample(apply(world.model, sweep), **how)) < EXACT


def test_image_to_image_with_a_mask(world: World) -> None:
    latent = {**painted(1, 8, 8), "noise_mask": HALF}
    how = {**SMALL, "latent": latent, "denoise": 0.5}
    model = remember(world.model)
    world.sample(put_on(world, model), **how)
    assert draws_alone(world, put_on(world, model, other=True), **how)
    ours = world.sample(put_on(world, model, other=True), **how)
    expected = world.sample(put_on(world, world.model, other=True), **how)
    assert difference(ours, expected) < EXACT


def test_in_two_parts(world: World) -> None:
    """The second part starts with the text stream's latents that the first has left."""

    def sample(model: ModelPatcher) -> Tensor:
        common = (SEED, STEPS, 5.0, "euler", "normal", world.positive, world.negative)
        node = nodes.KSamplerAdvanced()
        with torch.inference_mode():
            (first,) = node.sample(model, "enable", *common, empty(1, 8, 8), 0, 2, "enable")
            (second,) = node.sample(model, "disable", *common, first, 2, STEPS, "disable")
        return second["samples"]

    model = remember(world.model)
    sample(put_on(world, model))
    with watch_inputs(world) as seen:
        ours = sample(put_on(world, model, other=True))
    assert {len(rows) for rows in seen} == {2}
    assert difference(ours, sample(put_on(world, world.model, other=True))) < EXACT


# --- What changes it -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """A model with what one sampling left, and how the text stream was drawn there."""

    world: World
    model: ModelPatcher
    net: Any

    def is_found(self, changed: ModelPatcher | None = None, **how: Any) -> bool:
        model = self.model if changed is None else changed
        return draws_alone(self.world, put_on(self.world, model, other=True), **how)


@pytest.fixture(scope="module")
def kept(worlds: Loader, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    world = worlds("SDXL's blocks")
    model = remember(world.model)
    world.sample(put_on(world, model), **SMALL)
    return Kept(world, model, make_control_net(tmp_path_factory.mktemp("control")))


DIFFERENT: dict[str, dict[str, Any]] = {
    "sampler": {"sampler": "dpm_2"},
    "scheduler": {"scheduler": "karras"},
    "steps": {"steps": STEPS + 1},
    "guidance": {"cfg": 4.0},
    "no guidance": {"cfg": 1.0},
    "latent": {"latent": painted(1, 8, 8)},
    "size": {"latent": empty(1, 8, 16)},
    "batch": {"latent": empty(2, 8, 8)},
    "denoise": {"denoise": 0.5},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_another_setting_is_another_text_stream(kept: Kept, what: str) -> None:
    how = {**SMALL, **DIFFERENT[what]}
    assert kept.is_found()
    rows = count_rows(kept.world, put_on(kept.world, kept.model, other=True), **how)
    expected = count_rows(kept.world, put_on(kept.world, kept.world.model), **how)
    assert rows[1:] == expected[1:]  # the first step of another guidance is the same


def test_another_seed_is_another_text_stream(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept.is_found()
    monkeypatch.setattr("pack.tests.host.world.SEED", SEED + 1)
    assert not kept.is_found()


def test_a_lora_is_another_text_stream_and_the_same_one_is_found(kept: Kept) -> None:
    changed = change_weights(kept.model)
    assert not kept.is_found(changed)
    assert kept.is_found(changed)
    assert not kept.is_found(change_weights(kept.model))  # made anew: nobody has compared it


NETS: dict[str, dict[str, Any]] = {
    "as it was": {},
    "strength": {"strength": 0.5},
    "hint": {"hint": 1 - draw_hint()},
    "end": {"end": 0.5},
}


def test_a_control_net(kept: Kept) -> None:
    """An equal one is found; with another strength, hint or end it is not."""
    assert kept.is_found()
    for change, is_known in (*((name, False) for name in NETS), *((name, True) for name in NETS)):
        controlled = control(kept.world, kept.net, **NETS[change])
        how = {"positive": controlled.positive, "negative": controlled.negative}
        rows = count_rows(kept.world, put_on(kept.world, kept.model, other=True), **how)
        assert rows == [2 if is_known else 4] * STEPS


@pytest.mark.parametrize("hung", [True, False])
def test_a_control_nets_picture(kept: Kept, hung: bool) -> None:
    world = control(kept.world, kept.net) if hung else kept.world
    model = remember(world.model)
    world.sample(put_on(world, model), **SMALL)
    assert draws_alone(world, put_on(world, model, other=True))
    ours = world.sample(put_on(world, model, other=True), **SMALL)
    expected = world.sample(put_on(world, world.model, other=True), **SMALL)
    assert difference(ours, expected) < ROUNDING


# --- What cannot be compared ---------------------------------------------------------------------

# Those with which nothing is saved at all, which the log says in other words.
KEEPERS = {"EasyCache", "LazyCache", "SAG"}
WIDE = {"HyperTile": empty(1, 32, 32), "deep shrink": empty(1, 32, 32)}


@pytest.mark.parametrize("name", PATCHES)
def test_any_stock_patch(world: World, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The picture is that of both streams, and what is recalled is told."""
    how = {"steps": 2, "latent": WIDE.get(name, empty(1, 8, 8))}
    patched = PATCHES[name](world.model)
    model = remember(patched)

    def draw(given: ModelPatcher) -> Tensor:
        torch.manual_seed(0)  # HyperTile draws from the global generator
        return world.sample(given, **how)

    draw(put_on(world, model))
    caplog.clear()
    with watch_inputs(world) as seen:
        ours = draw(put_on(world, model, other=True))
    with watch_inputs(world) as both:
        expected = draw(put_on(world, patched, other=True))
    assert difference(ours, expected) < EXACT
    is_recalled = sum(map(len, seen)) < sum(map(len, both))
    assert is_recalled == (name not in KEEPERS)
    assert ("saves nothing in this run" in caplog.text) == (name in KEEPERS)


def wrap_model(model: ModelPatcher) -> ModelPatcher:
    wrapped = model.clone()
    wrapped.set_model_unet_function_wrapper(
        lambda apply_model, given: apply_model(given["input"], given["timestep"], **given["c"])
    )
    return wrapped


def wrap_conds(model: ModelPatcher) -> ModelPatcher:
    wrapped = model.clone()
    wrapped.add_wrapper_with_key("calc_cond_batch", "somebody", lambda run, *args: run(*args))
    return wrapped


def patch_attention(model: ModelPatcher) -> ModelPatcher:
    patched = model.clone()
    patched.set_model_attn2_patch(lambda q, k, v, _: (q, k, v))
    return patched


def set_option(model: ModelPatcher) -> ModelPatcher:
    patched = model.clone()
    patched.model_options["transformer_options"]["somebodys"] = object()
    return patched


FOREIGN: dict[str, tuple[Callable[[ModelPatcher], ModelPatcher], str]] = {
    "wrapper of the model": (wrap_model, "wrap_model"),
    "wrapper of the conds": (wrap_conds, "somebody"),
    "attention": (patch_attention, "patch_attention"),
    "option": (set_option, "object"),
    "staged words": (partial(apply_staged, strength=1.0), "text stream: Apply Staged Identity may"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_cannot_be_compared_is_not_remembered(
    world: World, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    change, who = FOREIGN[name]
    model = change(remember(world.model))
    world.sample(put_on(world, model), **SMALL)
    assert caplog.text.count("does not remember the text stream") == 1
    assert who in caplog.text
    assert archive_of(model).nbytes == 0
    assert count_rows(world, put_on(world, model, other=True)) == [4] * STEPS


def test_beside_deep_features_nothing_is_remembered(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    model = remember(world.model, deep=2)
    for other in (False, True):
        ours = world.sample(put_on(world, model, other=other), **SMALL)
    alone = save_time(put_on(world, world.model, other=True), Savings(deep=2))
    assert torch.equal(ours, world.sample(alone, **SMALL))
    assert "does not remember the text stream: deep_every" in caplog.text


# --- Other savings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "savings",
    [{"every": 2}, {"until": 0.45}, {"guided": False}, {"every": 3, "until": 0.7, "guided": False}],
    ids=str,
)
def test_with_other_savings(world: World, savings: dict[str, Any]) -> None:
    model, how = remember(world.model, **savings), {**SMALL, "steps": 6}
    world.sample(put_on(world, model), **how)
    with watch_inputs(world) as seen:
        ours = world.sample(put_on(world, model, other=True), **how)
    assert max(map(len, seen)) <= 2
    expected = world.sample(save_time(put_on(world, world.model, True), Savings(**savings)), **how)
    assert difference(ours, expected) < EXACT


def test_nothing_is_remembered_for_a_single_stream(world: World) -> None:
    model = remember(world.model)
    off = Application(world.identity, mixing=Mixing.OFF)
    world.sample(apply(model, off), **SMALL)
    assert archive_of(model).nbytes == 0


# --- What is kept --------------------------------------------------------------------------------


def count_bytes(world: World, rows: int) -> int:
    """K_t and V_t of the least net in float64 at 8x8 latents, and predictions in float32."""
    tokens, width = 4 * 4, 64
    features = 2 * len(world.identity.adapter.config.layers) * tokens * width
    return STEPS * rows * (8 * features + 4 * 4 * 8 * 8)


def test_what_is_kept_is_what_is_stated(world: World) -> None:
    model = remember(world.model)
    world.sample(put_on(world, model), **SMALL)
    assert archive_of(model).nbytes == count_bytes(world, rows=2)
    world.sample(put_on(world, model, other=True), **SMALL)
    assert archive_of(model).nbytes == count_bytes(world, rows=2)


def test_what_does_not_fit_runs(world: World) -> None:
    """The first steps are kept, and no more than the limit; the picture is the same."""
    told: list[str] = []
    limit = 2.5 * count_bytes(world, rows=2) / STEPS
    savings = Savings(remember=limit / GIGABYTE)
    model = save_time(world.model, savings, told.append)
    world.sample(put_on(world, model), **SMALL)
    assert 0 < archive_of(model).nbytes <= limit
    assert count_rows(world, put_on(world, model, other=True)) == [2, 2, 4, 4]
    ours = world.sample(put_on(world, model, other=True), **SMALL)
    assert difference(ours, world.sample(put_on(world, world.model, True), **SMALL)) < EXACT
    assert "recalled in 0 of 4" in told[0]
    assert "recalled in 2 of 4" in told[1]
    assert "2 found no room" in told[1]


def test_an_older_prompt_makes_room(world: World) -> None:
    limit = 1.5 * count_bytes(world, rows=2)
    model = remember(world.model, limit / GIGABYTE)
    world.sample(put_on(world, model), **SMALL)
    world.sample(put_on(world, model), positive=world.middle, **SMALL)
    assert archive_of(model).nbytes <= limit
    assert draws_alone(world, put_on(world, model, other=True), positive=world.middle)
    assert not draws_alone(world, put_on(world, model, other=True))


def test_nothing_is_kept_by_default(world: World) -> None:
    model = save_time(world.model, Savings())
    assert ARCHIVE not in model.model_options["transformer_options"]


def count_records() -> int:
    gc.collect()
    return sum(isinstance(one, Record) for one in gc.get_objects())


def test_it_is_gone_with_the_model(world: World) -> None:
    before = count_records()
    model = remember(world.model)
    world.sample(put_on(world, model), **SMALL)
    kept = weakref.ref(archive_of(model))
    assert count_records() == before + STEPS
    del model
    assert count_records() == before
    assert kept() is None


def test_an_interrupted_run_leaves_whole_steps(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the third step it breaks: two are recalled, and the picture is right."""
    model = remember(world.model)
    keep, calls = Record.keep, iter(range(1000))
    layers = len(world.identity.adapter.config.layers)

    def break_down(*args: Any) -> None:
        if next(calls) == 2 * layers + 1:
            raise RuntimeError("on purpose")
        keep(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "keep", break_down)
        with pytest.raises(RuntimeError, match="on purpose"):
            world.sample(put_on(world, model), **SMALL)
    assert archive_of(model).nbytes == count_bytes(world, rows=2) / 2
    assert count_rows(world, put_on(world, model, other=True)) == [2, 2, 4, 4]
    ours = world.sample(put_on(world, model), **SMALL)
    assert difference(ours, world.sample(put_on(world, world.model), **SMALL)) < EXACT

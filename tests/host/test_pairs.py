"""Any stock model patch, any sampler and any savings together, with any people and prompts.

Cases are drawn. `python -m dev test` draws the same ones each time; `python -m dev nightly` draws
others as long as it is told to, prints its seeds and keeps the cases that failed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import comfy.samplers
import nodes
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from hypothesis import HealthCheck, Phase, assume, event, given, reject, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from pack.infinite_id.application import Application
from pack.infinite_id.host.forward import Forward
from pack.infinite_id.host.keys import RUN
from pack.infinite_id.host.patch import apply, save_time
from pack.infinite_id.identities import mixing
from pack.infinite_id.savings import Savings
from pack.miniature.shapes import UNETS
from pack.tests.host.reference import Saving, Setting
from pack.tests.host.test_exactness import ROUNDING, SCHEDULERS, TOLERANCES
from pack.tests.host.test_reference import SIZE, TOLERANCE, run_reference
from pack.tests.host.test_reference import make_mask as make_reference_mask
from pack.tests.host.test_reference import put_on as put_on_reference
from pack.tests.host.test_stock_nodes import PATCHES
from pack.tests.host.world import SETTINGS, Conditioning, World, difference, empty
from torch import Tensor

if TYPE_CHECKING:
    from pack.tests.host.conftest import Loader

DATABASE = os.environ.get("INFINITE_ID_NIGHTLY")
"""Where the nightly command keeps the cases that failed; without it, cases are the same ones."""
STEPS = 4
BYTES = 8  # of a number of the model, which is in float64


def examples(few: int, many: int) -> settings:
    return settings(
        max_examples=many if DATABASE else few,
        phases=[Phase.reuse, Phase.generate, Phase.shrink] if DATABASE else [Phase.generate],
        derandomize=not DATABASE,
        database=DirectoryBasedExampleDatabase(DATABASE) if DATABASE else None,
        print_blob=bool(DATABASE),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class Quiet(World):
    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """Short: hypothesis prints it with each case that fails."""
        printer.text("world")


@pytest.fixture(scope="module")
def world(worlds: Loader) -> World:
    return Quiet(**vars(worlds("least", torch.float64)))


# --- What is drawn -------------------------------------------------------------------------------

# Where a node does nothing at the usual size.
SIZES = {"HyperTile": (32, 32), "deep shrink": (32, 32)}
WINDOWS = [(0.0, 1.0), (0.0, 0.5), (0.5, 1.0), (0.25, 0.75)]


@dataclass(frozen=True)
class Someone:
    """An application on the model; a sweep has several identities, which share one."""

    setting: str
    mask: str
    window: tuple[float, float]
    cross: bool
    sweep: int


@dataclass(frozen=True)
class Case:
    patch: str
    patch_first: bool
    sampler: str
    savings: Savings
    people: tuple[Someone, ...]
    prompt: str
    batch: int
    cfg: float


def half(width: int, side: str) -> Tensor:
    mask = torch.zeros(1, width, width)
    mask[..., slice(width // 2) if side == "left" else slice(width // 2, width)] = 1
    return mask


def make_mask(name: str, batch: int) -> Tensor | None:
    if name == "everywhere":
        return None
    if name == "one each":
        return torch.rand(batch, 16, 16, generator=torch.Generator().manual_seed(3))
    return half(16, name)


MASKS = ["everywhere", "left", "right", "one each"]


def one_prompt(world: World) -> Conditioning:
    return world.positive


def schedule(world: World) -> Conditioning:
    """One prompt for the first part, another for the rest."""
    cut = nodes.ConditioningSetTimestepRange().set_range
    first, rest = cut(world.positive, 0.0, 0.4)[0], cut(world.middle, 0.4, 1.0)[0]
    return nodes.ConditioningCombine().combine(first, rest)[0]


def combine(world: World) -> Conditioning:
    return nodes.ConditioningCombine().combine(world.positive, world.middle)[0]


def put_in_areas(world: World) -> Conditioning:
    area = nodes.ConditioningSetAreaPercentage().append
    left = area(world.middle, 0.5, 1.0, 0.0, 0.0, 1.0)[0]
    low = area(world.positive, 1.0, 0.5, 0.0, 0.5, 1.0)[0]
    return [*world.positive, *left, *low]


def mask_out(world: World) -> Conditioning:
    there = nodes.ConditioningSetMask().append(world.middle, half(16, "left"), "default", 1.0)[0]
    return nodes.ConditioningCombine().combine(world.positive, there)[0]


def schedule_an_area(world: World) -> Conditioning:
    """All at once: an area that comes late, beside two prompts that take turns."""
    area = nodes.ConditioningSetAreaPercentage().append(world.middle, 0.5, 1.0, 0.5, 0.0, 1.0)[0]
    late = nodes.ConditioningSetTimestepRange().set_range(area, 0.3, 1.0)[0]
    return [*schedule(world), *late]


def say_nothing(world: World) -> Conditioning:
    """The negative prompt's words."""
    return world.negative


PROMPTS: dict[str, Callable[[World], Conditioning]] = {
    prompt.__name__: prompt
    for prompt in (
        one_prompt,
        schedule,
        combine,
        put_in_areas,
        mask_out,
        schedule_an_area,
        say_nothing,
    )
}

# Shares that no step of the sampling lies at to the last bit: there rounding decides.
UNTIL = st.sampled_from([1.0, 0.0, 0.15, 0.45, 0.7, 0.9])
DEEP = st.sampled_from([1, 1, 2, 3])
CHANGE = st.sampled_from([0.0, 0.2, 1e9])
AGREE = st.sampled_from([1.0, 1.0, -1.0])  # never, and at once; in between rounding may decide
FAITHFUL = st.builds(Savings, until=UNTIL, deep=DEEP) | st.just(Savings(shared=True))
SAVING = st.builds(
    Savings,
    st.integers(1, 3),
    UNTIL,
    st.booleans(),
    st.booleans(),
    DEEP,
    change=CHANGE,
    agree=AGREE,
)


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Someone, ...]:
    """One person, a sweep, or several people."""
    one = st.builds(
        Someone,
        setting=st.sampled_from(list(SETTINGS)),
        mask=st.sampled_from(MASKS),
        window=st.sampled_from(WINDOWS),
        cross=st.booleans(),
        sweep=st.sampled_from([1, 1, 3]),
    )
    return tuple(draw(st.lists(one, min_size=1, max_size=3)))


def cases(economies: st.SearchStrategy[Savings]) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        patch=st.sampled_from(["", *PATCHES]),
        patch_first=st.booleans(),
        sampler=st.just("euler") | st.sampled_from(comfy.samplers.SAMPLER_NAMES),
        savings=economies,
        people=crowds(),
        prompt=st.sampled_from(list(PROMPTS)),
        batch=st.sampled_from([1, 3]),
        cfg=st.sampled_from([5.0, 1.0]),
    )


def put_on(
    world: World, model: ModelPatcher, case: Case, weight: float, saves: bool = True
) -> ModelPatcher:
    """The case's people and savings, by `apply`: not the node, so without its shortcut at 0."""
    other = replace(world.other, unconditional=world.identity.unconditional)
    for number, someone in enumerate(case.people):
        mixed, style = SETTINGS[someone.setting]
        identity = (world.identity, other)[number % 2]
        if someone.sweep > 1:
            identity = mixing.interpolate([world.identity, other], [0.0, 0.5, 1.0])
        application = Application(
            identity,
            weight=weight,
            mixing=mixed,
            style=style,
            style_in_cross_attention=someone.cross,
            start=someone.window[0],
            end=someone.window[1],
            mask=make_mask(someone.mask, case.batch),
        )
        model = apply(model, application)
    return save_time(model, case.savings) if saves else model


def patch_model(case: Case, model: ModelPatcher) -> ModelPatcher:
    """The stock node on the model; the case is none on a host that does not have it yet."""
    try:
        return PATCHES[case.patch](model) if case.patch else model
    except pytest.skip.Exception:
        reject()


def dress(
    world: World, model: ModelPatcher, case: Case, weight: float, saves: bool = True
) -> ModelPatcher:
    if case.patch_first:
        return put_on(world, patch_model(case, model), case, weight, saves)
    return patch_model(case, put_on(world, model, case, weight, saves))


def draw(world: World, model: ModelPatcher, case: Case) -> Tensor:
    torch.manual_seed(0)  # HyperTile draws from the global generator
    return world.sample(
        model,
        positive=PROMPTS[case.prompt](world),
        latent=empty(case.batch, *SIZES.get(case.patch, (8, 8))),
        sampler=case.sampler,
        scheduler=SCHEDULERS.get(case.sampler, "normal"),
        cfg=case.cfg,
        steps=STEPS,
    )


# --- Refusals ------------------------------------------------------------------------------------

REFUSALS = (
    "a sweep cannot be drawn in context windows or with shared latents",
    "this sampler goes back to higher noise after the text stream has ended, which a sweep cannot",
)


def count_pictures(case: Case) -> int:
    return case.batch * max(someone.sweep for someone in case.people)


def draw_plain(world: World, case: Case) -> Tensor:
    """The unpatched model with that patch; the case is none if the host cannot draw it itself.

    It keeps deep features and leaves the negative prompt out as well: these alone concern it.
    """
    saved = case.savings
    alone = Savings(deep=saved.deep, change=saved.change, agree=saved.agree, shared=saved.shared)
    try:
        model = save_time(patch_model(case, world.model), alone)
        return draw(world, model, case)
    except Exception as error:
        event(f"the host alone: {type(error).__name__}")
        reject()


def draw_or_refuse(world: World, model: ModelPatcher, case: Case) -> Tensor | None:
    """The picture; None if the pack says in a known sentence that there is none."""
    try:
        picture = draw(world, model, case)
    except Exception as error:
        if not is_refusal(error):
            draw_plain(world, case)
            raise
        return None
    assert picture.shape[0] == count_pictures(case)
    return picture


def is_refusal(error: Exception) -> bool:
    words = str(error)
    is_ours = isinstance(error, ValueError | RuntimeError) and "Infinite-ID" in words
    return is_ours and any(known in words for known in REFUSALS)


# --- Properties ----------------------------------------------------------------------------------


@examples(few=40, many=100)
@given(case=cases(FAITHFUL))
def test_weight_0_is_the_unpatched_model_with_that_patch(world: World, case: Case) -> None:
    """Faithful, with mixing that ends, and with shared latents; for all of a sweep.

    With deep features as well, where everybody always acts: else a step in which people change runs
    in full.
    """
    assume(case.savings.deep == 1 or all(someone.window == (0.0, 1.0) for someone in case.people))
    plain = draw_plain(world, case)
    ours = draw_or_refuse(world, dress(world, world.model, case, weight=0.0), case)
    if ours is None:
        return
    expected = plain.repeat_interleave(len(ours) // len(plain), 0)
    limit, _ = TOLERANCES.get(case.sampler, (ROUNDING, ""))
    assert difference(ours, expected) < limit


@examples(few=40, many=100)
@given(case=cases(SAVING))
def test_a_picture_or_a_refusal_and_no_more_kept_than_is_stated(world: World, case: Case) -> None:
    with watch_memory(world, case) as (model, ledger):
        picture = draw_or_refuse(world, dress(world, model, case, weight=1.0), case)
    assert not ledger.excesses
    assert picture is None or torch.isfinite(picture).all()


@examples(few=20, many=100)
@given(case=cases(SAVING).filter(lambda case: case.patch))
def test_the_order_of_the_nodes_does_not_matter(world: World, case: Case) -> None:
    """Also with the person in the picture, whatever is saved."""
    before, behind = (
        draw_or_refuse(
            world, dress(world, world.model, replace(case, patch_first=first), 1.0), case
        )
        for first in (True, False)
    )
    assert (before is None) == (behind is None)
    if before is not None and behind is not None:
        limit, _ = TOLERANCES.get(case.sampler, (ROUNDING, ""))
        assert difference(before, behind) < limit


KEEPERS = {"EasyCache", "LazyCache", "SAG"}  # beside these nothing is saved


@examples(few=10, many=100)
@given(case=cases(SAVING).filter(lambda case: case.patch not in KEEPERS))
def test_a_remembered_text_stream_is_the_one_that_would_run(world: World, case: Case) -> None:
    """After a picture of the same people at another weight, with anything else as it was."""
    case = replace(case, savings=replace(case.savings, shared=False))
    expected = draw_or_refuse(world, dress(world, world.model, case, weight=1.0), case)
    model = save_time(world.model, replace(case.savings, remember=1.0))
    for weight in (0.3, 1.0):
        ours = draw_or_refuse(world, dress(world, model, case, weight, saves=False), case)
    assert (ours is None) == (expected is None)
    if ours is not None and expected is not None:
        limit, _ = TOLERANCES.get(case.sampler, (ROUNDING, ""))
        assert difference(ours, expected) < limit


# --- The reference -------------------------------------------------------------------------------

MANY = 6  # steps; of which no share in UNTIL is at one
PICTURES = st.builds(
    Setting,
    mixing=st.sampled_from(["mixed", "mutual", "off"]),
    style=st.sampled_from(["photo", "mean", "full"]),
    style_in_cross=st.booleans(),
    weight=st.sampled_from([1.0, 0.3, 2.0]),
)
SAVINGS = st.builds(Saving, st.integers(1, 4), UNTIL, st.booleans(), st.integers(1, 3))


@examples(few=25, many=100)
@given(
    setting=PICTURES,
    saving=SAVINGS,
    masked=st.booleans(),
    batch=st.sampled_from([1, 3]),
    cfg=st.sampled_from([5.0, 1.0, 2.5]),
)
def test_savings_are_what_the_reference_leaves_out(
    world: World, setting: Setting, saving: Saving, masked: bool, batch: int, cfg: float
) -> None:
    mask = make_reference_mask(batch) if masked else None
    savings = Savings(saving.every, saving.until, saving.guided, deep=saving.deep)
    model = save_time(put_on_reference(world, setting, mask), savings)
    ours = world.sample(model, latent=empty(batch, *SIZE), cfg=cfg, steps=MANY)
    setting = replace(setting, mask=None if mask is None else mask.double())
    expected, _ = run_reference(world, setting, batch, saving, cfg, MANY)
    assert difference(ours, expected) < TOLERANCE


class ByHand:
    """Features recalled at every so-manyth noise level, in a run in which both streams run.

    It changes what such a run reads, and where its text rows go, from outside: nothing is saved.
    """

    def __init__(self, every: int, first: int) -> None:
        self.every = every
        self.first = first  # of the text rows
        self.sigma, self.age, self.number = float("inf"), every - 1, 0
        self.is_fresh = True
        self.key: Any = None
        self.slopes: dict[Any, list[Tensor]] = {}
        self.features: dict[Any, tuple[Tensor, Tensor]] = {}

    def begin(self, conds: Any, x: Tensor, sigma: float) -> None:
        if sigma != self.sigma:
            self.age += 1
            if sigma > self.sigma or self.age >= self.every:
                self.age = 0
                self.slopes.clear()
            self.sigma, self.number = sigma, 0
        active = tuple(
            (i, cond["uuid"], cond.get("area"))
            for i, group in enumerate(conds)
            for cond in group or ()
            if is_active(cond, sigma)
        )
        self.key = (self.number, x.shape, active)
        self.number += 1
        self.is_fresh = self.key not in self.slopes

    def evaluate(
        self, executor: WrapperExecutor, model: Any, conds: Any, x: Tensor, t: Tensor, options: Any
    ) -> Any:
        sigma, text = float(t[0]), x[self.first :]
        self.begin(conds, x, sigma)
        key, is_fresh = self.key, self.is_fresh
        denoised = executor(model, conds, x, t, options)
        if is_fresh:
            self.slopes[key] = [(text - one[self.first :]) / sigma for one in denoised]
            return denoised
        moved = [text - slope * sigma for slope in self.slopes[key]]
        return [
            torch.cat([one[: self.first], there])
            for one, there in zip(denoised, moved, strict=True)
        ]

    def read(self, forward: Forward, block: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        name = (self.key, tuple(forward.conds), block)
        if self.is_fresh:
            self.features[name] = k.clone(), v.clone()
        return self.features[name]


# Those that keep what a forward gave, with which nothing is saved; and those that change the
# number of tokens from step to step.
OTHERWISE = {"EasyCache", "LazyCache", "SAG", "HyperTile", "deep shrink"}
RECALLED = st.builds(Savings, st.sampled_from([2, 3]))


@examples(few=30, many=100)
@given(case=cases(RECALLED).filter(lambda case: case.patch not in OTHERWISE))
def test_the_last_features_are_read_with_any_patch(world: World, case: Case) -> None:
    """The picture of a run that saves nothing, whose features and text rows are put in by hand."""
    assume(case.prompt != "schedule_an_area")  # twice other conds: then nothing is looked for
    always = tuple(replace(someone, window=(0.0, 1.0)) for someone in case.people)
    case = replace(case, people=always)
    ours = draw(world, dress(world, world.model, case, 1.0), case)
    hand = ByHand(case.savings.every, count_pictures(case))
    model = world.model.clone()
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "by hand", hand.evaluate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forward, "read_text", lambda forward, *args: hand.read(forward, *args[:3]))
        faithful = replace(case, savings=Savings())
        expected = draw(world, dress(world, model, faithful, 1.0), case)
    limit, _ = TOLERANCES.get(case.sampler, (ROUNDING, ""))
    assert difference(ours, expected) < limit


# --- What is kept --------------------------------------------------------------------------------


@dataclass
class Ledger:
    """What may be kept: K_t and V_t of one evaluation's conds for each at a noise level.

    Attributes:
        levels: bytes of all evaluations at each noise level so far.
        excesses: where more was kept, and how much: sigma, bytes kept, bytes stated.
    """

    until: float
    sigma: float = float("nan")
    levels: list[int] = field(default_factory=list)
    excesses: list[tuple[float, int, int]] = field(default_factory=list)

    def note(self, sigma: float, stated: int, kept: int) -> None:
        if sigma != self.sigma:
            self.sigma = sigma
            self.levels.append(0)
        self.levels[-1] += stated
        limit = max(self.levels) if sigma > self.until else 0
        if kept > limit:
            self.excesses.append((sigma, kept, limit))


def count_bytes(shape: Sequence[int]) -> int:
    """Keys and values of all self-attentions of a picture `(h, w)`, from the UNet's shape."""
    unet = UNETS["least"]
    last = len(unet.mult) - 1
    numbers = 0
    for level, (mult, depth) in enumerate(zip(unet.mult, unet.depths, strict=True)):
        layers = depth * (2 * unet.blocks + 1) + (depth if level == last else 0)
        tokens = (shape[-2] >> level) * (shape[-1] >> level)
        numbers += layers * tokens * unet.channels * mult
    return 2 * numbers * BYTES


def is_active(cond: dict[str, Any], sigma: float) -> bool:
    begins, ends = cond.get("timestep_start"), cond.get("timestep_end")
    return (begins is None or sigma <= begins) and (ends is None or sigma >= ends)


@contextmanager
def watch_memory(world: World, case: Case) -> Iterator[tuple[ModelPatcher, Ledger]]:
    """A model around whose evaluations the features kept are compared with what is stated."""
    patched = patch_model(case, world.model)
    share = patched.get_model_object("model_sampling").percent_to_sigma(case.savings.until)
    ledger = Ledger(until=float(share))

    def evaluate(
        executor: WrapperExecutor, model: Any, conds: Any, x: Tensor, t: Tensor, options: Any
    ) -> Any:
        denoised = executor(model, conds, x, t, options)
        sigma = float(t[0])
        shapes = [
            cond["area"][:2] if "area" in cond else x.shape
            for group in conds
            for cond in group or ()
            if is_active(cond, sigma)
        ]
        memory = options["transformer_options"][RUN].text.memory
        stated = case.batch * sum(count_bytes(shape) for shape in shapes)
        ledger.note(sigma, stated, 0 if memory is None else memory.nbytes)
        return denoised

    model = world.model.clone()
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "watch", evaluate)
    yield model, ledger

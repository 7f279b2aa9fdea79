"""Any values of the widgets, any sizes and shapes: an error that says what is wrong, or a picture.

In float64, where the unpatched model is met closely at every size of latents.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from pack.infinite_id.application import Application, Curve
from pack.infinite_id.attention.mixed import Mixing, Style
from pack.infinite_id.host.patch import apply, save_time
from pack.infinite_id.identities import mixing
from pack.infinite_id.identities.identity import Identity
from pack.infinite_id.savings import Savings
from pack.nodes.apply import ApplyInfiniteID
from pack.tests.host.world import Conditioning, World, difference, empty
from torch import Tensor

if TYPE_CHECKING:
    from pack.tests.host.conftest import Loader

ROUNDING = 1e-5
STEPS = 3

few = settings(
    max_examples=20,
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def world(worlds: Loader) -> World:
    return worlds("least", torch.float64)


# --- What is drawn -------------------------------------------------------------------------------

SHARES = st.floats(0, 1)
FACTORS = st.floats(0, 3)
CURVES = st.sampled_from([curve.value for curve in Curve])
WIDGETS = st.fixed_dictionaries(
    {
        "weight": FACTORS,
        "style": st.sampled_from([style.value for style in Style]),
        "mixed_attention": st.sampled_from([mixed.value for mixed in Mixing]),
        "start_percent": SHARES,
        "end_percent": SHARES,
        "style_in_cross_attention": st.booleans(),
    },
    optional={
        "weight_curve": CURVES,
        "down_weight": FACTORS,
        "middle_weight": FACTORS,
        "up_weight": FACTORS,
        "layer_weights": st.sampled_from(["", "down1: 0", "up1: 0.5, down1: 3"]),
    },
)
ECONOMIES = st.builds(Savings, st.integers(1, 4), SHARES, st.booleans(), st.booleans())
# At two by two, the narrow UNet normalises groups of a single value, which torch refuses.
SIZES = st.tuples(st.integers(1, 3), st.integers(3, 12), st.integers(3, 12))
CFG = st.sampled_from([1.0, 5.0])
SEEDS = st.integers(0, 2**16)
NO_NUMBERS = (float("nan"), float("inf"), float("-inf"))


@st.composite
def masks(draw: st.DrawFn, no_numbers: bool = False) -> Tensor | None:
    """Of any resolution and batch, inside 0..1 and outside; maybe with values that are none."""
    shape = (draw(st.integers(0, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    generator = torch.Generator().manual_seed(draw(SEEDS))
    mask = draw(st.floats(-2, 2)) + 3 * torch.rand(shape, generator=generator)
    if no_numbers and mask.numel() and draw(st.booleans()):
        mask.view(-1)[draw(st.integers(0, mask.numel() - 1))] = draw(st.sampled_from(NO_NUMBERS))
    return draw(st.sampled_from([None, mask, mask]))


@st.composite
def prompts(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """One or two conds: rows, tokens and a seed of each."""
    rows, tokens = st.integers(1, 4), st.integers(1, 24)
    return draw(st.lists(st.tuples(rows, tokens, SEEDS), min_size=1, max_size=2))


def make_prompt(world: World, conds: list[tuple[int, int, int]]) -> Conditioning:
    width, pooled_width = world.positive[0][0].shape[-1], world.positive[0][1]["pooled_output"]
    made = []
    for rows, tokens, seed in conds:
        generator = torch.Generator().manual_seed(seed)
        cond = torch.randn(rows, tokens, width, generator=generator)
        pooled = torch.randn(rows, pooled_width.shape[-1], generator=generator)
        made.append([cond, {"pooled_output": pooled}])
    return made


def make_identity(world: World, count: int, photos: int) -> Identity:
    """A sweep of so many, each a stack of so many photos."""
    other = replace(world.other, unconditional=world.identity.unconditional)
    people = [mixing.stack([one] * photos) for one in (world.identity, other)]
    if count == 1:
        return people[0]
    return mixing.interpolate(people, [i / (count - 1) for i in range(count)])


def find_mistake(widgets: dict[str, Any], mask: Tensor | None) -> str | None:
    """What the Apply node must say, if anything."""
    if widgets["start_percent"] >= widgets["end_percent"]:
        return "must be below end_percent"
    if widgets["weight"] == 0 or mask is None:
        return None
    if not mask.numel():
        return "the mask is empty"
    return None if torch.isfinite(mask).all() else "the mask holds values that are not numbers"


# --- Properties ----------------------------------------------------------------------------------


@few
@given(
    widgets=WIDGETS,
    savings=ECONOMIES,
    size=SIZES,
    mask=masks(no_numbers=True),
    count=st.integers(1, 3),
    photos=st.integers(1, 2),
    positive=prompts(),
    negative=prompts(),
    cfg=CFG,
)
def test_an_error_or_a_picture(
    world: World,
    widgets: dict[str, Any],
    savings: Savings,
    size: tuple[int, int, int],
    mask: Tensor | None,
    count: int,
    photos: int,
    positive: list[tuple[int, int, int]],
    negative: list[tuple[int, int, int]],
    cfg: float,
) -> None:
    """Mistakes are told at the node; what it lets through is drawn, one picture for each row."""
    identity = make_identity(world, count, photos)

    def put_on() -> ModelPatcher:
        return ApplyInfiniteID.execute(world.model, identity, mask=mask, **widgets).result[0]

    mistake = find_mistake(widgets, mask)
    if mistake is not None:
        with pytest.raises(ValueError, match=f"^Apply Infinite-ID: .*{mistake}"):
            put_on()
        return
    model, prompt = save_time(put_on(), savings), make_prompt(world, positive)
    how: dict[str, Any] = {"negative": make_prompt(world, negative), "cfg": cfg, "steps": STEPS}
    style, mixed = Style(widgets["style"]), Mixing(widgets["mixed_attention"])
    two = mixed is not Mixing.OFF or style is not Style.PHOTO
    if widgets["weight"] and mask is not None and len(mask) not in (1, size[0]):
        with pytest.raises(ValueError, match=f"{len(mask)} masks for {size[0]} latents"):
            world.sample(model, positive=prompt, latent=empty(*size), **how)
        return
    if widgets["weight"] and savings.shared and two and count > 1:
        with pytest.raises(ValueError, match=r"^Infinite-ID: a sweep cannot be drawn"):
            world.sample(model, positive=prompt, latent=empty(*size), **how)
        return
    picture = world.sample(model, positive=prompt, latent=empty(*size), **how)
    rows = size[0] * (count if widgets["weight"] else 1)
    assert picture.shape == (rows, 4, *size[1:])
    assert torch.isfinite(picture).all()


@few
@given(
    style=st.sampled_from(Style),
    mixed=st.sampled_from(Mixing),
    span=st.tuples(SHARES, SHARES),
    shared=st.booleans(),
    until=SHARES,
    size=SIZES,
    mask=masks(),
    count=st.integers(1, 3),
    positive=prompts(),
    negative=prompts(),
    cfg=CFG,
)
def test_weight_0_is_the_unpatched_model(
    world: World,
    style: Style,
    mixed: Mixing,
    span: tuple[float, float],
    shared: bool,
    until: float,
    size: tuple[int, int, int],
    mask: Tensor | None,
    count: int,
    positive: list[tuple[int, int, int]],
    negative: list[tuple[int, int, int]],
    cfg: float,
) -> None:
    """Whatever the prompts' shapes are, and for every person of a sweep."""
    assume(mask is None or (mask.numel() and len(mask) in (1, size[0])))
    assume(count == 1 or not shared)
    application = Application(
        make_identity(world, count, 1), 0.0, mixed, style, start=min(span), end=max(span), mask=mask
    )
    model = save_time(apply(world.model, application), Savings(until=until, shared=shared))
    how: dict[str, Any] = {
        "positive": make_prompt(world, positive),
        "negative": make_prompt(world, negative),
        "latent": empty(*size),
        "cfg": cfg,
        "steps": STEPS,
    }
    plain = world.sample(world.model, **how)
    assert difference(world.sample(model, **how), plain.repeat_interleave(count, 0)) < ROUNDING

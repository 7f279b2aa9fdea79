"""Counts that a step must not exceed: forwards, rows, attention, projections, FLOPs, allocations.

At SDXL's true size on tensors without storage, and through the host's sampler on the miniature.
What must be is derived from the UNet's shape; the figures of the first test were counted once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from pack.bench.counting import count_evaluation, like
from pack.bench.limit import UNet, Work, count_limit, count_step, list_layers
from pack.bench.modes import (
    FAITHFUL,
    MODES,
    NEGATIVE,
    ONLY,
    POSITIVE,
    SAVINGS,
    Evaluation,
    Mode,
    list_evaluations,
)
from pack.bench.true_size import CONFIG
from pack.bench.watch import Counts, watch
from pack.infinite_id.adapters.adapter import Adapter
from pack.infinite_id.attention.mixed import Style, mix
from pack.infinite_id.host import image_attention, mixed_attention
from pack.infinite_id.host.conds import Comparison
from pack.infinite_id.host.patch import apply, save_time
from pack.infinite_id.host.text_stream import TextRows, TextStream
from pack.infinite_id.identities import mixing
from pack.infinite_id.identities.projections import KeyValues
from pack.infinite_id.savings import Savings
from pack.tests.host.world import IDENTITY_TOKENS, World
from torch import Tensor

SDXL = UNet.of(CONFIG)
AT_512, AT_1024 = Work(64, 64), Work(128, 128)
ALL = (*MODES, *SAVINGS)
FULL = Evaluation((NEGATIVE, POSITIVE), has_text=True)
ALONE = Evaluation((NEGATIVE, POSITIVE), has_text=False)
RECALLED = Evaluation((NEGATIVE, POSITIVE), has_text=False, text_rows=TextRows.RECALLED)
LAYERS = 70
STEPS = 6


def measure(mode: Mode | None, evaluation: Evaluation, work: Work) -> Counts:
    return count_evaluation(like(mode), evaluation, work)


@pytest.mark.parametrize(
    ("mode", "evaluation", "work", "ratio"),
    [
        (ONLY, ALONE, AT_512, 1.017),
        (FAITHFUL, FULL, AT_512, 2.047),
        (FAITHFUL, FULL, Work(96, 96), 2.082),
        (FAITHFUL, FULL, AT_1024, 2.127),
    ],
)
def test_the_limit(mode: Mode, evaluation: Evaluation, work: Work, ratio: float) -> None:
    plain = count_limit(SDXL, work, None, ALONE)
    assert count_limit(SDXL, work, mode, evaluation) / plain == pytest.approx(ratio, abs=0.0006)


@pytest.mark.parametrize(
    ("deep", "work", "ratio"),
    [(2, AT_512, 1.0937), (2, AT_1024, 1.1297), (3, AT_512, 0.776), (3, AT_1024, 0.7972)],
)
def test_the_limit_with_deep_features(deep: int, work: Work, ratio: float) -> None:
    """A person for about the price of the plain picture."""
    mode = next(mode for mode in SAVINGS if mode.savings == Savings(deep=deep))
    found = count_step(SDXL, work, mode) / count_limit(SDXL, work, None, ALONE)
    assert found == pytest.approx(ratio, abs=0.0006)
    assert mode.target is not None
    assert found <= mode.target


@pytest.mark.parametrize(
    ("work", "most", "of_inputs", "megabytes"),
    [(AT_512, 1.06, 1.121, 210), (AT_1024, 1.14, 1.197, 839)],
)
def test_a_remembered_text_stream(
    work: Work, most: float, of_inputs: float, megabytes: int
) -> None:
    """Keys and values are kept: of the layers' inputs, half as large, the targets are not met."""
    mode = next(mode for mode in SAVINGS if mode.savings.remember)
    plain, found = count_limit(SDXL, work, None, ALONE), count_step(SDXL, work, mode)
    assert found / plain < most
    layers = list(list_layers(SDXL, work))
    assert round(sum(2 * 2 * 2 * n * c for n, c in layers) / 1e6) == megabytes  # 2 rows, K and V
    projected = sum(2 * 2 * 2 * n * c * c for n, c in layers)
    assert (found + projected) / plain == pytest.approx(of_inputs, abs=0.0006)


def test_the_limit_with_attention_at_another_price() -> None:
    """What costs more is attention to the pixels, the text and, in its layers, the identity."""
    dear = replace(AT_512, attention=3.0)
    layers = list(list_layers(SDXL, AT_512))
    for mode, keys in ((None, [0] * len(layers)), (ONLY, [AT_512.tokens] * len(layers))):
        flops = sum(
            2 * 4 * n * c * (n + AT_512.text + more)  # two rows
            for (n, c), more in zip(layers, keys, strict=True)
        )
        found = count_limit(SDXL, dear, mode, ALONE) - count_limit(SDXL, AT_512, mode, ALONE)
        assert found == 2 * flops


@pytest.mark.parametrize(
    ("mode", "work"),
    [*((mode, AT_512) for mode in (None, *ALL)), *((m, AT_1024) for m in (None, ONLY, FAITHFUL))],
    ids=lambda x: f"{8 * x.width} px" if isinstance(x, Work) else x.name if x else "plain",
)
def test_no_flop_more_than_there_must_be(mode: Mode | None, work: Work) -> None:
    for evaluation in list_evaluations(mode):
        found = measure(mode, evaluation, work).flops
        assert found == count_limit(SDXL, work, mode, evaluation), evaluation


Attention = list[tuple[int, int, int]]


class Expected(NamedTuple):
    mode: Mode
    evaluation: Evaluation
    in_layers: int  # allocations beyond plain's, in each
    attention: Callable[[int], Attention]
    around: int = 0  # allocations once a forward


# Per layer: allocations beyond plain's, and the calls of attention as (rows, queries, keys), where
# the layer has n pixels. A call of attention makes two tensors (on this device): what it gives, and
# that with the heads side by side.
#   identity: 4 = K', V' of both conds, the call; the sum with the text's attention is in place
#   streams:  5 = mixed keys and values, the text stream's own call, both streams together
#   recalled: 2 = mixed keys and values
#   AdaIN:    8 = two means, their difference and the sum with it, for keys and values
#   alike:    as streams, with one prompt's text rows; 5 around = fewer rows of the latents, the
#             noise level, the text and the sizes go in, and the latents with all rows come out
#   sweep:    2 = rows of several people lie apart in the two conds: both queries
EXPECTED: dict[str, Expected] = {
    "identity attention only": Expected(
        ONLY,
        ALONE,
        4,
        lambda n: [(2, n, n), (2, n, 77), (2, n, 258)],
    ),
    "both streams": Expected(
        FAITHFUL,
        FULL,
        4 + 5,
        lambda n: [(2, n, 2 * n), (2, n, n), (4, n, 77), (2, n, 258)],
    ),
    "both streams, AdaIN-mean": Expected(
        next(mode for mode in MODES if mode.style is Style.ADAIN_MEAN),
        FULL,
        4 + 5 + 8,
        lambda n: [(2, n, 2 * n), (2, n, n), (4, n, 77), (2, n, 258)],
    ),
    "text recalled": Expected(
        next(mode for mode in MODES if mode.savings.every == 2),
        RECALLED,
        4 + 2,
        lambda n: [(2, n, 2 * n), (2, n, 77), (2, n, 258)],
    ),
    "both prompts alike": Expected(
        FAITHFUL,
        FULL._replace(is_alike=True),
        4 + 5,
        lambda n: [(2, n, 2 * n), (1, n, n), (3, n, 77), (2, n, 258)],
        around=5,
    ),
    "sweep of 8": Expected(
        next(mode for mode in MODES if mode.people == 8),
        FULL,
        4 + 5 + 2,
        lambda n: [(16, n, 2 * n), (2, n, n), (18, n, 77), (16, n, 258)],
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_calls_and_allocations(name: str) -> None:
    mode, evaluation, in_layers, attention, around = EXPECTED[name]
    plain, found = measure(None, ALONE, AT_512), measure(mode, evaluation, AT_512)
    layers = list_layers(SDXL, AT_512)
    assert found.attention == Counter(call for n, _ in layers for call in attention(n))
    assert found.calls["linear"] == plain.calls["linear"]  # K', V' were projected before
    assert found.allocations - plain.allocations == in_layers * LAYERS + around


# --- Through the host's sampler ------------------------------------------------------------------


def patch(world: World, mode: Mode) -> ModelPatcher:
    identity = world.identity
    if mode.people > 1:
        places = [n / (mode.people - 1) for n in range(mode.people)]
        identity = mixing.interpolate([world.identity, world.other], places)
    for projections in (identity.projections, identity.unconditional_projections):
        projections.on(torch.device("cpu"), torch.float32)
    return save_time(apply(world.model, mode.apply_to(identity)), mode.savings)


def count_sampling(world: World, mode: Mode) -> int:
    model = patch(world, mode)
    negative = world.positive if mode.is_alike else world.negative
    if mode.savings.remember:
        world.sample(model, steps=STEPS, negative=negative)
    with watch() as counts:
        world.sample(model, steps=STEPS, negative=negative)
    return counts.flops


def limit_sampling(world: World, mode: Mode) -> float:
    unet = UNet.of(world.model.model.model_config.unet_config)
    text = world.positive[0][0].shape[1]
    work = Work(16, 16, tokens=IDENTITY_TOKENS, text=text)
    return STEPS * count_step(unet, work, mode)


# Six steps are not a whole number of periods of four, nor is half of them half of the sampling.
EVEN = [
    mode
    for mode in ALL
    if STEPS % (mode.savings.every * mode.savings.deep) == 0 and mode.savings.until == 1
]


@pytest.mark.parametrize("mode", EVEN, ids=lambda mode: mode.name)
def test_a_sampling_has_no_forward_or_row_too_many(tiny: World, mode: Mode) -> None:
    assert count_sampling(tiny, mode) == pytest.approx(limit_sampling(tiny, mode), rel=1e-12)


def test_a_row_too_many_is_noticed(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    every_2nd = next(mode for mode in MODES if mode.savings.every == 2)
    alike = next(mode for mode in MODES if mode.is_alike)
    runs = TextRows.IN_BATCH
    monkeypatch.setattr(TextStream, "plan", lambda _, signature, *__: (runs, (signature, 0)))
    monkeypatch.setattr(Comparison, "is_alike", lambda *_: False)
    for mode in (every_2nd, alike):
        with pytest.raises(AssertionError):
            test_a_sampling_has_no_forward_or_row_too_many(tiny, mode)


def test_an_identity_is_projected_once(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens and those for nobody: for all steps, samplings and weights; never by Apply."""
    nothing = tiny.identity.unconditional.clone()
    identity = replace(tiny.identity, unconditional=nothing)  # with no projections yet
    calls: list[Tensor] = []
    project = Adapter.project

    def note(adapter: Adapter, tokens: Tensor) -> KeyValues:
        calls.append(tokens)
        return project(adapter, tokens)

    monkeypatch.setattr(Adapter, "project", note)
    for weight, before in ((1.0, 0), (1.0, 2), (0.5, 2)):
        model = apply(tiny.model, replace(FAITHFUL.apply_to(identity), weight=weight))
        assert len(calls) == before
        tiny.sample(model, steps=1)
        assert len(calls) == 2


def test_no_identity_is_projected_once_for_all_people(
    tiny: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = tiny.identity.unconditional.clone()
    people = [replace(tiny.identity, unconditional=nothing) for _ in range(3)]
    calls: list[Tensor] = []
    project = Adapter.project

    def note(adapter: Adapter, tokens: Tensor) -> KeyValues:
        calls.append(tokens)
        return project(adapter, tokens)

    monkeypatch.setattr(Adapter, "project", note)
    model = tiny.model
    for person in people:
        model = apply(model, FAITHFUL.apply_to(person))
    tiny.sample(model, steps=1)
    assert len(calls) == len(people) + 1


# --- The counts notice what is too much ----------------------------------------------------------


def spoil_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    add = image_attention.add_image_attention

    def attend_twice(out: Tensor, q: Tensor, k: Tensor, v: Tensor, attend: Any, *rest: Any) -> None:
        attend(q, k, v)
        add(out, q, k, v, attend, *rest)

    monkeypatch.setattr(image_attention, "add_image_attention", attend_twice)


def spoil_projections(monkeypatch: pytest.MonkeyPatch) -> None:
    select = image_attention._select_key_values

    def project(*args: Any) -> tuple[Tensor, ...]:
        k, v = select(*args)
        torch.nn.functional.linear(k, k.new_zeros(1, k.shape[-1]))
        return k, v

    monkeypatch.setattr(image_attention, "_select_key_values", project)


def spoil_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed_attention, "mix", lambda *args: mix(*args).clone())


SPOILED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "attention": spoil_attention,
    "projections": spoil_projections,
    "memory": spoil_memory,
}


def make_count_anew() -> Callable[..., Counts]:
    """Like `count_evaluation`, of which only the plain model's counts are as they were."""
    counted, anew = count_evaluation, cache(count_evaluation.__wrapped__)
    return lambda mode, *rest: (anew if mode else counted)(mode, *rest)


@pytest.mark.parametrize("name", SPOILED)
def test_too_much_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    SPOILED[name](monkeypatch)
    monkeypatch.setitem(globals(), "count_evaluation", make_count_anew())
    with pytest.raises(AssertionError):
        test_calls_and_allocations("both streams")
    if name != "memory":
        with pytest.raises(AssertionError):
            test_no_flop_more_than_there_must_be(FAITHFUL, AT_512)

"""`plan`'s arithmetic, and the counters behind it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pack.infinite_id.count import PeakMemory, count_flops
from pack.infinite_id.training.plan import (
    CONTEXT,
    Card,
    Setup,
    count_fitting,
    count_photo,
    count_total,
    describe,
    steps_a_second,
)
from pack.infinite_id.training.settings import Optimiser, Settings

GB = 10**9


def make_counts() -> Any:
    counts = SimpleNamespace(
        unet=5 * GB, adapter=1 * GB, fixed=0.5 * GB, sample=2 * GB, flops=20e12
    )
    counts.peak = lambda n: max(counts.adapter, counts.fixed + n * counts.sample)
    return counts


def make_setup(cards: int = 1, memory: float = 24 * GB, **run: Any) -> Setup:
    settings = Settings(run=replace(Settings().run, **{"batch": 8, "at_once": 2, **run}))
    return Setup("mine", Card("card", memory, 40e12, "stated"), cards, settings)


def test_memory_is_the_sum_of_its_parts() -> None:
    """UNet, weights, average, two moments; then activations, or what AdamW takes."""
    counts = make_counts()
    assert count_total(make_setup(), counts) == 5 * GB + 4 * GB + CONTEXT + 4.5 * GB
    counts.sample = 0.1 * GB
    assert count_total(make_setup(), counts) == 5 * GB + 4 * GB + CONTEXT + 2 * GB


def test_moments_of_eight_bits_take_a_quarter() -> None:
    setup = make_setup()
    small = replace(setup.settings, optimiser=Optimiser(kind="adamw8bit"))
    saved = count_total(setup, make_counts()) - count_total(
        replace(setup, settings=small), make_counts()
    )
    assert saved == 1.5 * GB


def test_several_cards_exchange_and_share() -> None:
    counts = make_counts()
    alone = count_total(make_setup(), counts)
    assert count_total(make_setup(cards=4), counts) == alone + GB
    assert count_total(make_setup(cards=4, sharded=True), counts) == alone + GB - 3 * GB


def test_as_many_samples_fit_as_there_is_room_for() -> None:
    counts = make_counts()
    for memory in (20 * GB, 24 * GB, 30 * GB):
        most = count_fitting(make_setup(memory=memory), counts)
        assert count_total(make_setup(memory=memory, at_once=most), counts) <= memory
        assert count_total(make_setup(memory=memory, at_once=most + 1), counts) > memory
    assert count_fitting(make_setup(memory=11 * GB), counts) == 0


def test_time_is_operations_over_speed() -> None:
    assert steps_a_second(make_setup(), make_counts()) == pytest.approx(40 / (8 * 20))
    assert steps_a_second(make_setup(cards=4), make_counts()) == pytest.approx(40 / (2 * 20))
    table = describe([(make_setup(steps=86400), make_counts())])
    rows = [line.rsplit(maxsplit=1) for line in table.splitlines() if line.strip()]
    assert ["steps a second", "0.25"] in rows
    assert ["days", "4"] in rows
    assert "card: stated." in table


def test_a_photo_takes_what_its_tensors_take() -> None:
    tensors = [
        torch.zeros(512),
        torch.zeros(257, 1280).half(),
        *[torch.zeros(4, 128, 128).half()] * 2,
    ]
    assert count_photo(1024, 512, (257, 1280)) == sum(x.nbytes for x in tensors)


def test_memory_is_counted_until_it_is_freed() -> None:
    with PeakMemory() as memory:
        a = torch.zeros(1000)
        b = a.reshape(10, 100)
        del a
        c = b + 1
        del b
        d = c.mul_(2)
        d = torch.zeros(500)
        del c, d
    assert memory.peak == 8000


def test_operations_of_attention_are_counted_both_ways() -> None:
    """A product of (n, d) and (d, m) is 2 n d m: two of them forward, five backward."""
    q = torch.randn(1, 2, 16, 8, requires_grad=True)
    k = torch.randn(1, 2, 12, 8, requires_grad=True)
    with count_flops() as flops:
        torch.nn.functional.scaled_dot_product_attention(q, k, k).sum().backward()
    assert flops.get_total_flops() == (2 + 5) * 2 * 2 * 16 * 8 * 12

"""Several people in one picture: each where its mask is, and nowhere else, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import nodes
import pytest
import torch
from pack.infinite_id.application import Application
from pack.infinite_id.host import image_attention
from pack.infinite_id.host.patch import apply
from pack.tests.host.world import SETTINGS, World, difference, empty
from torch import Tensor

# Latent pixels: multiples of 8 picture pixels, and of 64 or not, odd ones among them.
SIZES = [(16, 16), (13, 19), (9, 22)]


@contextmanager
def watch_contributions(strangers: Tensor) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """For each image attention: its mask, and how much its output hangs on who the person is.

    The same queries attend to the person and to a stranger, random keys and values that are a
    thousand times larger; where both give the same bits, nobody could have made a difference.
    """
    original = image_attention.add_image_attention
    seen = []

    def watched(out: Tensor, q: Tensor, k: Tensor, v: Tensor, *args: Any) -> None:
        before, other = out.clone(), out.clone()
        original(out, q, k, v, *args)
        k_other, v_other = (1e3 * strangers[: k.numel()].view_as(k) for _ in range(2))
        original(other, q, k_other, v_other, *args)
        same = (out == other).all(-1, keepdim=True) & (out == before).all(-1, keepdim=True)
        seen.append((args[2], same.flatten(0, 2)))

    image_attention.add_image_attention = watched  # type: ignore[assignment]
    try:
        yield seen
    finally:
        image_attention.add_image_attention = original


def split_masks(height: int, width: int, at: int) -> tuple[Tensor, Tensor]:
    left = torch.zeros(1, height, width)
    left[..., :at] = 1
    return left, 1 - left


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("setting", "batch"), product(SETTINGS, (1, 2)))
def test_a_person_adds_nothing_outside_its_mask(
    tiny: World, setting: str, batch: int, size: tuple[int, int]
) -> None:
    height, width = size
    masks = split_masks(height, width, at=width // 2 + 1)
    mixing, style = SETTINGS[setting]
    model = tiny.model
    for person, mask in zip((tiny.identity, tiny.other), masks, strict=True):
        model = apply(model, Application(person, mixing=mixing, style=style, mask=mask))
    area = nodes.ConditioningSetArea().append(
        tiny.middle, 8 * (width // 2), 8 * height, 8 * (width // 4), 0, 1.0
    )[0]
    prompt = nodes.ConditioningCombine().combine(tiny.positive, area)[0]
    strangers = torch.randn(10**6, generator=torch.Generator().manual_seed(3))
    with watch_contributions(strangers) as seen:
        tiny.sample(model, positive=prompt, latent=empty(batch, *size), steps=2)
    assert len(seen) >= 2 * 2 * 11 * 2  # people, steps, layers; whole and area
    partly = 0
    for mask, untouched in seen:
        assert torch.equal(untouched, mask == 0)
        partly += bool((mask == 0).any() and (mask > 0).any())
    assert partly > len(seen) / 2


def test_a_person_at_a_mask_of_its_own_is_only_there(tiny: World) -> None:
    """The pictures: without another's influence through self-attention each half would be equal.

    With weight on one side only, that side changes far more than the other.
    """
    left, right = split_masks(16, 16, at=8)
    plain = tiny.sample(tiny.model)
    for mask, inside in ((left, slice(0, 8)), (right, slice(8, 16))):
        changed = tiny.sample(tiny.patch(setting="off", mask=mask))
        outside = slice(8, 16) if inside.start == 0 else slice(0, 8)
        near = difference(changed[..., inside], plain[..., inside])
        far = difference(changed[..., outside], plain[..., outside])
        assert near > 1.5 * far


def test_two_people_share_one_text_stream(tiny: World) -> None:
    left, right = split_masks(16, 16, at=8)
    rows = []
    hook = tiny.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        model = apply(tiny.model, Application(tiny.identity, mask=left))
        tiny.sample(apply(model, Application(tiny.other, mask=right)), steps=3, cfg=1.0)
    finally:
        hook.remove()
    assert rows == [2, 2, 2]

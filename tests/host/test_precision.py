"""Every dtype that UNets come in, and pictures whose latents no power of two divides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pack.infinite_id.host import image_attention
from pack.infinite_id.host.patch import apply
from pack.tests.host.world import SETTINGS, difference, empty

if TYPE_CHECKING:
    from pack.tests.host.conftest import Loader
    from pack.tests.host.world import World

# 1024x1024, 832x1216 and 520x512 pixels as latents (height, width)
LATENTS = [(128, 128), (152, 104), (64, 65)]


@contextmanager
def watch_image_attention() -> Iterator[list[tuple[Any, ...]]]:
    """Every `(text attention, its sum with the image attention, grid)` while open."""
    original = image_attention.add_image_attention
    seen: list[tuple[Any, ...]] = []

    def watched(out: torch.Tensor, *args: Any) -> None:
        before = out.clone()
        original(out, *args)
        seen.append((before.flatten(0, 2), out.flatten(0, 2).clone()))

    image_attention.add_image_attention = watched  # type: ignore[assignment]
    try:
        yield seen
    finally:
        image_attention.add_image_attention = original


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("setting", SETTINGS)
def test_dtypes(worlds: Loader, dtype: torch.dtype, setting: str) -> None:
    """Runs without a clash, is finite, has an effect, and is near the float32 picture."""
    world, reference = worlds("tiny", dtype), worlds("tiny")
    picture = world.sample(world.patch(setting=setting), steps=2)
    expected = reference.sample(reference.patch(setting=setting), steps=2)
    assert torch.isfinite(picture).all()
    assert difference(picture, world.sample(world.model, steps=2)) > 1e-2
    assert difference(picture, expected) < {torch.float32: 1e-6}.get(dtype, 0.1)


@pytest.mark.parametrize("size", LATENTS, ids=lambda size: f"{8 * size[1]}x{8 * size[0]}")
def test_mask_sides_at_every_size(tiny: World, size: tuple[int, int]) -> None:
    """Left half on: at every layer, what the identity adds is there on the left, 0 on the right."""
    mask = torch.zeros(1, 8 * size[0], 8 * size[1])
    mask[..., : 8 * (size[1] // 2)] = 1
    with watch_image_attention() as seen:
        picture = tiny.sample(tiny.patch(mask=mask), latent=empty(1, *size), steps=1)
    assert torch.isfinite(picture).all()
    assert len(seen) in (11, 22)  # the host cuts a forward in two if memory is short
    grids = [(-(-size[0] // level), -(-size[1] // level)) for level in (2, 4)]
    for out, result in seen:
        height, width = next(g for g in grids if g[0] * g[1] == out.shape[1])
        added = (result - out).reshape(len(out), height, width, -1).abs().amax(dim=(0, 1, 3))
        assert (added[: width // 2 - 1] > 0).all()
        assert (added[width // 2 + 1 :] == 0).all()


@pytest.mark.parametrize("size", LATENTS[1:], ids=lambda size: f"{8 * size[1]}x{8 * size[0]}")
def test_full_and_empty_masks(tiny: World, size: tuple[int, int]) -> None:
    """A mask of ones is no mask; a mask of zeros is weight 0."""
    latent = empty(1, *size)

    def sample(**changes: Any) -> torch.Tensor:
        return tiny.sample(tiny.patch(**changes), latent=latent, steps=1)

    assert difference(sample(mask=torch.ones(1, 32, 32)), sample()) < 1e-5
    assert difference(sample(mask=torch.zeros(1, 32, 32)), sample(weight=0.0)) < 1e-5
    assert difference(sample(), sample(weight=0.0)) > 1e-3


def test_a_mask_for_each_picture_of_a_batch(tiny: World) -> None:
    """With as many masks as pictures, each picture is as if it were alone with its own."""
    masks = torch.zeros(2, 16, 16)
    masks[0, :, :8] = 1
    masks[1, 8:, :] = 1
    with watch_image_attention() as seen:
        tiny.sample(tiny.patch(mask=masks), latent=empty(2), steps=1)
    out, result = seen[0]
    added = (result - out).abs().amax(-1).reshape(2, 2, 8, 8)  # (chunk picture) h w
    for chunk in added:
        assert (chunk[0, :, 4:] == 0).all()
        assert (chunk[0, :, :4] > 0).all()
        assert (chunk[1, :4] == 0).all()
        assert (chunk[1, 4:] > 0).all()


def test_two_people_with_masks_do_not_leak(tiny: World) -> None:
    """Outside a person's mask it makes no difference who that person is."""
    left = torch.zeros(1, 16, 16)
    left[..., :8] = 1
    one = tiny.patch(mask=left)
    with watch_image_attention() as first:
        tiny.sample(one, steps=1)
    application = one.model_options["transformer_options"]["infinite_id_applications"][0]
    swapped = apply(tiny.model, type(application)(tiny.other, mask=left))
    with watch_image_attention() as second:
        tiny.sample(swapped, steps=1)
    (out_a, sum_a), (out_b, sum_b) = first[0], second[0]
    assert torch.equal(out_a, out_b), "the first layer's queries do not know the identity yet"
    difference_of_people = (sum_a - sum_b).abs().amax(-1).reshape(-1, 8, 8)
    assert (difference_of_people[..., 4:] == 0).all()
    assert (difference_of_people[..., :4] > 0).any()

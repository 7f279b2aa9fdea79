"""Several GPUs: the host's MultiGPU CFG Split deals the conds of a step out to clones of the model.

It runs here in full, threads and all, on two names of the CPU, of which PyTorch makes one. That
tensors of two true devices never meet is seen on devices that need not be there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import comfy.model_management
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from pack.bench.true_size import (
    IDENTITY_TOKENS,
    fake_cuda,
    make_identity,
    make_options,
    make_sdxl,
    run_with,
)
from pack.infinite_id.application import Application
from pack.infinite_id.attention.mixed import Style
from pack.infinite_id.host.keys import EVALUATION, RUN
from pack.infinite_id.host.patch import apply, save_time
from pack.infinite_id.host.text_stream import TextRows
from pack.infinite_id.identities import mixing
from pack.infinite_id.identities.identity import Identity
from pack.infinite_id.savings import Savings
from pack.tests.host.world import SETTINGS, World, difference, empty

ROUNDING = 1e-5
FIRST, SECOND = torch.device("cpu"), torch.device("cpu", 0)
CUDA = torch.device("cuda", 0), torch.device("cuda", 1)

pytestmark = pytest.mark.skipif(
    find_spec("comfy.multigpu") is None, reason="this host has no MultiGPU CFG Split"
)


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        comfy.model_management, "get_all_torch_devices", lambda *_, **__: [FIRST, SECOND]
    )
    # The host's node stumbles over models whose patcher is gone, as earlier tests leave them.
    loaded = comfy.model_management.current_loaded_models
    loaded[:] = [one for one in loaded if one.model is not None]


def deal_out(model: ModelPatcher) -> ModelPatcher:
    from comfy_extras.nodes_multigpu import MultiGPUCFGSplitNode

    return MultiGPUCFGSplitNode.execute(model, 2).result[0]


@contextmanager
def count_rows(model: ModelPatcher) -> Iterator[list[list[int]]]:
    """The rows of each forward, of the model and of its clone."""
    (clone,) = model.get_additional_models_with_key("multigpu")
    seen: list[list[int]] = [[], []]
    hooks = [
        patcher.model.diffusion_model.register_forward_pre_hook(
            lambda _, args, rows=rows: rows.append(len(args[0]))
        )
        for patcher, rows in zip((model, clone), seen, strict=True)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def compare(world: World, alone: ModelPatcher, dealt: ModelPatcher, **sampling: Any) -> list[int]:
    """The same picture on one device and on two, which had as many rows; the rows of each step."""
    expected = world.sample(alone, **sampling)
    with count_rows(dealt) as (here, there):
        found = world.sample(dealt, **sampling)
    assert difference(found, expected) < ROUNDING
    assert difference(found, world.sample(world.model, latent=empty(len(found)))) > 0.05
    assert here == there
    return here


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("order", ["identity first", "split first"])
def test_the_picture_is_that_of_one_device(least: World, setting: str, order: str) -> None:
    alone = least.patch(setting=setting)
    if order == "identity first":
        dealt = deal_out(alone)
    else:
        dealt = replace(least, model=deal_out(least.model)).patch(setting=setting)
    assert compare(least, alone, dealt) == [1 if setting == "off" else 2] * 4


@pytest.mark.usefixtures("two_devices")
def test_masks_and_several_people(least: World) -> None:
    left = torch.zeros(1, 16, 16)
    left[..., :8] = 1
    people = (least.identity, left), (least.other, 1 - left)

    def patch(model: ModelPatcher) -> ModelPatcher:
        for identity, mask in people:
            model = apply(model, Application(identity, mask=mask))
        return model

    assert compare(least, patch(least.model), deal_out(patch(least.model))) == [2] * 4


@pytest.mark.usefixtures("two_devices")
def test_a_sweep(least: World) -> None:
    sweep = mixing.interpolate([least.identity, least.other], [0, 0.5, 1])
    alone = apply(least.model, Application(sweep))
    assert compare(least, alone, deal_out(alone)) == [4] * 4


@pytest.mark.usefixtures("two_devices")
def test_both_prompts_alike(least: World) -> None:
    """Each device has its own prompt's text rows: nothing waits for another device."""
    world = replace(least, negative=least.positive)
    alone = world.patch()
    assert compare(world, alone, deal_out(alone)) == [2] * 4


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize(
    ("savings", "rows"),
    [
        (Savings(every=2), [2, 1, 2, 1]),
        (Savings(until=0.5), [2, 2, 1, 1]),
        (Savings(shared=True), [2, 2, 2, 2]),
    ],
    ids=["every 2nd", "first half", "shared"],
)
def test_savings(least: World, savings: Savings, rows: list[int]) -> None:
    alone = save_time(least.patch(), savings)
    assert compare(least, alone, deal_out(alone)) == rows


@torch.inference_mode()
def test_tensors_of_two_gpus_never_meet() -> None:
    """People made ready on the first GPU are drawn on the second, and so is what it remembers."""
    first, second = CUDA
    with fake_cuda():
        identity: Identity = replace(make_identity(), shares=torch.ones(1, IDENTITY_TOKENS))
        people = [
            Application(identity, mask=torch.ones(1, 512, 512), style=Style.ADAIN_MEAN),
            Application(identity, style_in_cross_attention=True),
        ]
        here, there = (make_sdxl(torch.float16, device) for device in CUDA)
        options = make_options(here, people, torch.zeros(1, 4, 64, 64), Savings(every=2))
        assert run_with(there, options, 64, 64).device == second
        assert run_with(here, options, 64, 64).device == first
        evaluation = options[EVALUATION]
        options[EVALUATION] = replace(evaluation, text_rows=TextRows.RECALLED, calls=Counter())
        assert run_with(there, options, 64, 64).device == second

        person = options[RUN].people[0]
        assert person.on(first) is person
        copied = person.on(second)
        assert copied is person.on(second)  # once a run, not once a layer
        assert {x.device for pair in copied.key_values.values() for x in pair} == {second}

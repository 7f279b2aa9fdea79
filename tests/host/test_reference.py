"""The patched host against an independent reference (`reference.py`), over four Euler steps.

In float64, so that what is left is the host's float32 latents between the steps: differences far
below any that a wrong formula makes.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from einops import reduce, repeat
from pack.infinite_id.attention.mixed import Mixing, Style
from pack.tests.host import reference
from pack.tests.host.reference import Net, Prompt, Saving, Setting
from pack.tests.host.world import SEED, World, difference, empty, sigmas
from torch import Tensor

CFG = 5.0
FAITHFUL = Saving()
SIZE = (8, 16)  # of the latent; not square, so that height and width cannot be confused
TOLERANCE = 1e-6  # the acceptance asks for 1e-4
STYLES = {"photo": Style.PHOTO, "mean": Style.ADAIN_MEAN, "full": Style.ADAIN}


def make_net(world: World, setting: Setting) -> Net:
    adapter = world.identity.adapter.state_dict()
    return Net(
        unet=world.unet.state_dict(),
        adapter={key: x.double() for key, x in adapter.items()},
        setting=setting,
    )


def make_prompts(world: World) -> tuple[Prompt, Prompt]:
    """The positive branch sees the person, the negative one the unconditional identity."""
    people = (world.identity.tokens, world.identity.unconditional)
    prompts = [
        Prompt(tokens.double(), extra["pooled_output"].double(), person.double())
        for ((tokens, extra),), person in zip((world.positive, world.negative), people, strict=True)
    ]
    return prompts[0], prompts[1]


@torch.inference_mode()
def run_reference(
    world: World,
    setting: Setting,
    batch: int,
    saving: Saving = FAITHFUL,
    cfg: float = CFG,
    steps: int = 4,
) -> tuple[Tensor, Tensor]:
    shape = empty(batch, *SIZE)["samples"].shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(SEED)).double()
    net = make_net(world, setting)
    levels = sigmas(world.model, steps).double()
    return reference.sample(net, noise, levels, make_prompts(world), cfg, saving)


def put_on(world: World, setting: Setting, mask: Tensor | None) -> ModelPatcher:
    return world.patch(
        setting.weight,
        mixing=Mixing(setting.mixing),
        style=STYLES[setting.style],
        style_in_cross_attention=setting.style_in_cross,
        mask=mask,
    )


def run_host(world: World, setting: Setting, batch: int, mask: Tensor | None) -> Tensor:
    return world.sample(put_on(world, setting, mask), latent=empty(batch, *SIZE), cfg=CFG)


def make_mask(batch: int) -> Tensor:
    """Grey values, a different mask for each picture, at the latent's resolution."""
    return torch.rand(batch, *SIZE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("batch", [1, 2])
def test_the_reference_is_the_host_s_net(precise: World, batch: int) -> None:
    """Without an identity: the reference's net and sampler are the unpatched host's."""
    identity, text = run_reference(precise, Setting(mixing="off", weight=0.0), batch)
    plain = precise.sample(precise.model, latent=empty(batch, *SIZE), cfg=CFG)
    assert difference(text, plain) < TOLERANCE
    assert difference(identity, plain) < TOLERANCE


# A style changes nothing where its statistics are not used: only real combinations are listed.
CASES = [
    Setting(mixing, style, style_in_cross)
    for mixing, style, style_in_cross in product(
        ("mixed", "mutual", "off"), ("photo", "mean", "full"), (False, True)
    )
    if not (style == "photo" and style_in_cross)
]


def describe(setting: Setting) -> str:
    return f"{setting.mixing}-{setting.style}{'-cross' if setting.style_in_cross else ''}"


# Each setting without a mask and with one for each picture of two; the ablations the other way too.
HEADLINES = [setting for setting in CASES if setting.mixing == "mixed" or setting.style == "photo"]
TABLE = [
    *((setting, masked, 1 + masked) for setting in CASES for masked in (False, True)),
    *((setting, masked, 2 - masked) for setting in HEADLINES for masked in (False, True)),
]
DAILY = [(s, m, b) for s, m, b in TABLE if b == 2 and (m or s in HEADLINES)]


@pytest.mark.parametrize(
    ("setting", "masked", "batch"),
    [case if case in DAILY else pytest.param(*case, marks=pytest.mark.nightly) for case in TABLE],
    ids=[f"{describe(s)}-{'masked' if m else 'everywhere'}-{b}" for s, m, b in TABLE],
)
def test_the_patched_host_agrees(
    precise: World, setting: Setting, masked: bool, batch: int
) -> None:
    """Every mixing, style and mask gives the reference's picture."""
    mask = make_mask(batch) if masked else None
    expected = replace(setting, mask=None if mask is None else mask.double())
    identity, text = run_reference(precise, expected, batch)
    ours = run_host(precise, setting, batch, mask)
    assert difference(ours, identity) < TOLERANCE
    assert difference(text, identity) > 1e-2


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_the_weight_scales_the_image_attention(precise: World, weight: float) -> None:
    setting = Setting(weight=weight)
    identity, _ = run_reference(precise, setting, batch=1)
    assert difference(run_host(precise, setting, 1, None), identity) < TOLERANCE


def test_a_mask_in_pixels_is_averaged_to_the_latent(precise: World) -> None:
    """A mask of the picture's size is the mask of the mean over each latent's 8x8 pixels."""
    small = make_mask(1)
    pixels = repeat(small, "b h w -> b (h y) (w x)", y=8, x=8)
    rough = pixels * torch.rand(pixels.shape, generator=torch.Generator().manual_seed(4))
    means = reduce(rough, "b (h y) (w x) -> b h w", "mean", y=8, x=8)
    identity, _ = run_reference(precise, Setting(mask=means.double()), batch=1)
    assert difference(run_host(precise, Setting(), 1, rough), identity) < TOLERANCE


def test_the_settings_differ(precise: World) -> None:
    """The table above compares different things: no two of its settings give one picture."""
    pictures: dict[str, Tensor] = {}
    for setting in CASES:
        if setting.mixing == "mutual" and setting.style != "photo" and not setting.style_in_cross:
            continue  # replaced keys and values leave nothing to style
        pictures[describe(setting)] = run_host(precise, setting, 1, None)
    pairs: list[tuple[Any, ...]] = [
        (a, b, difference(pictures[a], pictures[b]))
        for number, a in enumerate(pictures)
        for b in list(pictures)[:number]
    ]
    assert min(pairs, key=lambda pair: pair[2])[2] > 100 * TOLERANCE

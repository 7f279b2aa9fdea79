"""At weight 0 the two streams coincide: whatever else is set, the picture is the unpatched model's.

The node's shortcut is bypassed by `World.patch`, so that both streams really run. Set
INFINITE_ID_TABLE to a file name to have the table of relative differences written there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.samplers
import nodes
import pytest
import torch
from comfy.k_diffusion import sampling as k_diffusion
from comfy_extras.nodes_advanced_samplers import SamplerLCMUpscale
from comfy_extras.nodes_custom_sampler import SamplerDPMPP_SDE
from pack.infinite_id import noise
from pack.nodes.apply import ApplyInfiniteID
from pack.tests.host.world import (
    SEED,
    SETTINGS,
    World,
    by_day,
    difference,
    empty,
    guider,
    painted,
    sample_custom,
    sigmas,
)
from torch import Tensor

if TYPE_CHECKING:
    from pack.tests.host.conftest import Loader

ROUNDING = 1e-4  # relative, in float32: a doubled batch changes the order of sums
EXACT = 1e-9  # relative, with the model in float64
STEPS = 4
SMALL = (8, 8)  # latent size of the widest table: where a doubled batch rounds differently most

# Samplers whose line in the table has a tolerance of its own, and why.
TOLERANCES = {
    "dpm_adaptive": (
        3e-2,
        "accepts or repeats a step, and sizes the next, by a norm over the whole batch: rounding "
        "moves every step that follows",
    ),
}
# It also takes some hundred steps on the way to the smallest noise; this schedule ends earlier.
SCHEDULERS = {"dpm_adaptive": "sgm_uniform"}
# All samplers run. None is skipped; one that had to be would stand here with its reason.
SKIPPED: dict[str, str] = {}

Table = dict[tuple[str, int, float], dict[str, float]]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """Relative differences by (sampler, batch, guidance), then setting; written at the end."""
    rows: Table = {}
    yield rows
    if file := os.environ.get("INFINITE_ID_TABLE"):
        Path(file).write_text(write_table(rows), encoding="utf-8")


def write_table(rows: Table) -> str:
    head = f"{'sampler':30} {'batch':>5} {'cfg':>4} " + " ".join(f"{s:>10}" for s in SETTINGS)
    lines = [
        f"{sampler:30} {batch:5} {cfg:4g} " + " ".join(f"{found[s]:10.1e}" for s in SETTINGS)
        for (sampler, batch, cfg), found in rows.items()
    ]
    notes = [f"{name}: tolerance {limit:g}; {why}" for name, (limit, why) in TOLERANCES.items()]
    skipped = [f"{name}: skipped; {why}" for name, why in SKIPPED.items()]
    return "\n".join([head, *lines, *notes, *skipped]) + "\n"


@pytest.mark.parametrize("cfg", by_day([1.0, 5.0], [5.0]), ids=["cfg1", "cfg5"])
@pytest.mark.parametrize("batch", by_day([1, 2], [2]), ids=["batch1", "batch2"])
@pytest.mark.parametrize("sampler", comfy.samplers.SAMPLER_NAMES)
def test_every_sampler(least: World, table: Table, sampler: str, batch: int, cfg: float) -> None:
    """Every sampler that the host lists, with every mixing and style of the table."""
    if sampler in SKIPPED:
        pytest.skip(SKIPPED[sampler])
    how: dict[str, Any] = {"sampler": sampler, "cfg": cfg, "steps": STEPS}
    how |= {"latent": empty(batch, *SMALL), "scheduler": SCHEDULERS.get(sampler, "normal")}
    plain = least.sample(least.model, **how)
    found = {s: difference(least.sample(least.patch(0.0, s), **how), plain) for s in SETTINGS}
    table[sampler, batch, cfg] = found
    limit, _ = TOLERANCES.get(sampler, (ROUNDING, ""))
    assert max(found.values()) < limit, found


@pytest.mark.parametrize(
    "sampler", ["euler", "ddim", "euler_ancestral", "lcm", "dpmpp_2m_sde", "ddpm", "heun"]
)
def test_in_float64_nothing_is_left(worlds: Loader, sampler: str) -> None:
    """The differences above are rounding: with the model in float64 they vanish."""
    world = worlds("least", torch.float64)
    how: dict[str, Any] = {"sampler": sampler, "latent": empty(2, *SMALL)}
    plain = world.sample(world.model, **how)
    for setting in ("mixed", "AdaIN-mean"):
        assert difference(world.sample(world.patch(0.0, setting), **how), plain) < EXACT


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral"])
def test_an_identity_is_seen(tiny: World, sampler: str) -> None:
    """The table is not of a model that ignores its patches."""
    plain = tiny.sample(tiny.model, sampler=sampler)
    pictures = [tiny.sample(tiny.patch(1.0, setting), sampler=sampler) for setting in SETTINGS]
    assert all(difference(picture, plain) > 1e-2 for picture in pictures)


def test_without_shared_noise_the_table_would_fail(
    tiny: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table can fail: streams with noises of their own give another picture."""
    plain = tiny.sample(tiny.model, sampler="euler_ancestral")
    monkeypatch.setattr(noise._Operators, "_batch_axis", lambda *_: None)
    assert difference(tiny.sample(tiny.patch(0.0), sampler="euler_ancestral"), plain) > 1e-2


def test_the_node_returns_the_model_itself_at_weight_0(tiny: World) -> None:
    """Bit-equal and free: the very same object."""
    for style, mixing in (("photo", "mixed"), ("style (AdaIN-mean)", "mutual")):
        out = ApplyInfiniteID.execute(
            tiny.model, tiny.identity, 0.0, style, mixing, 0.0, 1.0, False
        )
        assert out.result[0] is tiny.model


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
def test_every_scheduler(least: World, scheduler: str) -> None:
    plain = least.sample(least.model, scheduler=scheduler)
    assert difference(least.sample(least.patch(0.0), scheduler=scheduler), plain) < ROUNDING


def make_hole(batch: int = 1) -> Tensor:
    """A noise mask: repaint the left half, softly at its edge."""
    mask = torch.zeros(batch, 1, 64, 64)
    mask[..., :24] = 1.0
    mask[..., 24:32] = 0.5
    return mask


@pytest.mark.parametrize("sampler", ["euler", "ddim", "euler_ancestral", "dpmpp_2m_sde", "uni_pc"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "noise-mask"])
@pytest.mark.parametrize("batch", [1, 2], ids=["batch1", "batch2"])
def test_image_to_image(least: World, sampler: str, masked: bool, batch: int) -> None:
    """Half denoised, with and without a noise mask; ddim draws noise of its own for the mask."""
    latent = painted(batch, *SMALL)
    if masked:
        latent["noise_mask"] = make_hole(batch)
    how: dict[str, Any] = {"sampler": sampler, "latent": latent, "denoise": 0.5}
    plain = least.sample(least.model, **how)
    assert difference(plain, latent["samples"]) > 1e-2
    for setting in SETTINGS:
        assert difference(least.sample(least.patch(0.0, setting), **how), plain) < ROUNDING


def make_churning() -> comfy.samplers.KSAMPLER:
    """Euler with s_churn: draws noise by `randn_like` itself, not through a noise sampler."""
    return comfy.samplers.KSAMPLER(
        k_diffusion.sample_euler, {"s_churn": 2.0, "s_noise": 1.01, "s_tmax": 10.0}
    )


def make_upscaling() -> comfy.samplers.KSAMPLER:
    """LCM that makes the latent larger as it goes.

    Not by 'bislerp': that hands back a memory layout that depends on the batch size, and the host
    draws noise in the order of memory, so already its own batches of 1 and 2 differ there.
    """
    return SamplerLCMUpscale.execute(1.5, 2, "bilinear").result[0]


def make_gpu_noise() -> comfy.samplers.KSAMPLER:
    return SamplerDPMPP_SDE.execute(1.0, 1.0, 0.5, "gpu").result[0]


@pytest.mark.parametrize("make", [make_churning, make_upscaling, make_gpu_noise])
@pytest.mark.parametrize("batch", [1, 2], ids=["batch1", "batch2"])
def test_custom_samplers(least: World, make: Any, batch: int) -> None:
    """Through SamplerCustomAdvanced, both of its outputs."""
    prompts = (least.positive, least.negative)
    how: dict[str, Any] = {"sampler": make(), "latent": empty(batch, *SMALL)}
    plain = sample_custom(guider(least.model, *prompts), **how)
    for setting in SETTINGS:
        ours = sample_custom(guider(least.patch(0.0, setting), *prompts), **how)
        assert difference(ours[0], plain[0]) < ROUNDING
        assert difference(ours[1], plain[1]) < ROUNDING


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_previews_and_x0_show_the_identity_stream(tiny: World, weight: float) -> None:
    """The callback and the node's second output get the identity stream's rows and no others."""
    guide = guider(tiny.patch(weight), tiny.positive, tiny.negative)
    samples, denoised = sample_custom(guide, latent=empty(2))
    assert samples.shape == denoised.shape == (2, 4, 16, 16)
    # The last Euler step ends on x0 itself.
    assert difference(denoised, samples) < 1e-6


def test_the_callback_sees_what_it_would_without_us(tiny: World) -> None:
    """At weight 0 every preview and every x handed to the callback is the unpatched model's."""

    def record(model: Any) -> list[Tensor]:
        seen: list[Tensor] = []

        def callback(_step: int, x0: Tensor, x: Tensor, _total: int) -> None:
            seen.extend((x0.clone(), x.clone()))

        guide = guider(model, tiny.positive, tiny.negative)
        latent = empty(2)["samples"]
        with torch.inference_mode():
            guide.sample(
                torch.randn(latent.shape, generator=torch.Generator().manual_seed(SEED)),
                latent,
                comfy.samplers.sampler_object("euler_ancestral"),
                sigmas(model, STEPS),
                callback=callback,
                disable_pbar=True,
                seed=SEED,
            )
        return seen

    plain, ours = record(tiny.model), record(tiny.patch(0.0))
    assert len(plain) == len(ours) == 2 * STEPS
    assert all(difference(a, b) < ROUNDING for a, b in zip(ours, plain, strict=True))


def test_ksampler_advanced_in_two_parts(tiny: World) -> None:
    """Stop half-way with noise left over, go on without adding any: as the unpatched model does."""

    def sample_in_parts(model: Any) -> Tensor:
        common = (SEED, STEPS, 5.0, "euler", "normal", tiny.positive, tiny.negative)
        node = nodes.KSamplerAdvanced()
        with torch.inference_mode():
            (first,) = node.sample(model, "enable", *common, empty(), 0, 2, "enable")
            (second,) = node.sample(model, "disable", *common, first, 2, STEPS, "disable")
        return second["samples"]

    assert difference(sample_in_parts(tiny.patch(0.0)), sample_in_parts(tiny.model)) < ROUNDING

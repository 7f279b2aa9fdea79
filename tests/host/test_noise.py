"""Samplers that draw their noise otherwise: the same in both streams, or the log says that not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import comfy.samplers
import numpy as np
import pytest
import torch
from comfy.k_diffusion import sampling as k_diffusion
from pack.infinite_id.host.patch import save_time
from pack.infinite_id.identities import mixing
from pack.infinite_id.noise import SharedNoise
from pack.infinite_id.savings import Savings
from pack.tests.host.world import World, difference, empty, guider, painted, sample_custom
from torch import Generator, Tensor
from torch.distributions import Laplace, StudentT

ROUNDING = 1e-4

Draw = Callable[[Tensor, Generator], Tensor]


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return torch.randn_like(x)


def pyramid(x: Tensor, g: Generator) -> Tensor:
    noise = torch.rand(x.shape, generator=g) - 0.5
    for i in range(1, 3):
        size = (*x.shape[:2], x.shape[2] * 2**i, x.shape[3] * 2**i)
        finer = torch.normal(mean=0, std=0.5**i, size=size, generator=g)
        noise += torch.nn.functional.interpolate(finer, x.shape[2:])
    return noise


SHARED: dict[str, Draw] = {
    "randn": lambda x, g: torch.randn(x.shape, generator=g),
    "randn, size": lambda x, g: torch.randn(size=x.shape, generator=g),
    "randn_like, input": lambda x, _: torch.randn_like(input=x),
    "randn, out": lambda x, g: torch.randn(x.shape, generator=g, out=torch.empty_like(x)),
    "rand": lambda x, g: (torch.rand(x.shape, generator=g) - 0.5) * 3.46,
    "normal": lambda x, g: torch.normal(0.0, 1.0, x.shape, generator=g),
    "normal around x": lambda x, g: torch.normal(x, 1.0, generator=g) - x,
    "normal_": lambda x, g: torch.empty_like(x).normal_(generator=g),
    "uniform_": lambda x, g: torch.empty_like(x).uniform_(-1.7, 1.7, generator=g),
    "exponential_": lambda x, g: torch.empty_like(x).exponential_(generator=g) - 1,
    "Student's t": lambda x, _: StudentT(5.0).rsample(x.shape),
    "Laplace": lambda x, _: Laplace(0.0, 0.7).sample(x.shape),
    "pyramid": pyramid,
    "per latent": lambda x, _: torch.stack([torch.randn(x.shape[1:]) for _ in x]),
    "per latent, filled": lambda x, g: torch.stack(
        [torch.empty_like(one).normal_(generator=g) for one in x]
    ),
    "per latent, seeded": lambda x, _: torch.cat(
        [
            torch.randn((1, *x.shape[1:]), generator=Generator().manual_seed(i))
            for i in range(len(x))
        ]
    ),
    "for all": lambda x, g: torch.randn(x.shape[1:], generator=g),
}
FOREIGN: dict[str, Draw] = {
    "numpy": lambda x, _: torch.from_numpy(np.random.default_rng(0).normal(size=x.shape)).to(x),
    "script": lambda x, _: scripted(x),
    "per channel": lambda x, _: torch.stack(
        [torch.stack([torch.randn(x.shape[2:]) for _ in one]) for one in x]
    ),
}


def ancestral(draw: Draw) -> comfy.samplers.KSAMPLER:
    def sample_strangely(
        model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, **_: Any
    ) -> Tensor:
        generator = Generator().manual_seed(5)
        for sigma, next_ in pairwise(sigmas):
            down, up = k_diffusion.get_ancestral_step(sigma, next_)
            denoised = model(x, sigma * x.new_ones([len(x)]), **extra_args)
            x = x + k_diffusion.to_d(x, sigma, denoised) * (down - sigma)
            if next_ > 0:
                x = x + draw(x, generator) * up
        return x

    return comfy.samplers.KSAMPLER(sample_strangely)


def draw_with(world: World, model: Any, draw: Draw, batch: int) -> Tensor:
    torch.manual_seed(3)
    guide = guider(model, world.positive, world.negative)
    return sample_custom(guide, sampler=ancestral(draw), latent=empty(batch, 8, 8))[0]


def is_warned(caplog: pytest.LogCaptureFixture) -> bool:
    messages = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    return any("draws random numbers in a way" in message for message in messages)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", SHARED)
def test_noise_of_any_kind_is_shared(
    least: World, name: str, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    plain = draw_with(least, least.model, SHARED[name], batch)
    ours = draw_with(least, least.patch(0.0), SHARED[name], batch)
    assert difference(ours, plain) < ROUNDING
    draw_with(least, least.patch(1.0), SHARED[name], batch)
    assert not is_warned(caplog)


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("name", FOREIGN)
def test_other_noise_is_told(
    least: World, name: str, weight: float, caplog: pytest.LogCaptureFixture
) -> None:
    draw_with(least, least.patch(weight), FOREIGN[name], 1)
    assert [r.getMessage() for r in caplog.records if "'sample_strangely'" in r.getMessage()] == [
        "Infinite-ID: the sampler 'sample_strangely' draws random numbers in a way that cannot be "
        "shared, so the two streams had different noise, and the picture is not the one it should "
        "be. Choose another sampler or noise, or switch on shared_latents in Infinite-ID Save Time."
    ]


@pytest.mark.parametrize("name", FOREIGN)
def test_the_advice_helps(least: World, name: str, caplog: pytest.LogCaptureFixture) -> None:
    plain = draw_with(least, least.model, FOREIGN[name], 2)
    ours = draw_with(least, save_time(least.patch(0.0), Savings(shared=True)), FOREIGN[name], 2)
    assert difference(ours, plain) < ROUNDING
    assert not is_warned(caplog)


def test_a_sweep_gets_other_advice(least: World, caplog: pytest.LogCaptureFixture) -> None:
    other = replace(least.other, unconditional=least.identity.unconditional)
    sweep = mixing.interpolate([least.identity, other], [0, 1])
    draw_with(least, least.patch(1.0, "off", identity=sweep), FOREIGN["numpy"], 1)
    assert "or draw the identities one by one." in caplog.text


@pytest.mark.parametrize("sampler", comfy.samplers.SAMPLER_NAMES)
def test_no_sampler_of_the_host_is_accused(
    least: World, sampler: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a person, whose picture goes its own way; also where a part is repainted."""
    scheduler = "sgm_uniform" if sampler == "dpm_adaptive" else "normal"
    how: dict[str, Any] = {"sampler": sampler, "scheduler": scheduler, "steps": 6}
    latent = painted(1, 8, 8)
    latent["noise_mask"] = torch.ones(1, 1, 8, 8)
    latent["noise_mask"][..., :2] = 0.5
    for weight in (0.0, 3.0):
        least.sample(least.patch(weight), latent=latent, **how)
    assert not is_warned(caplog)


@pytest.mark.parametrize(
    "sampler", ["euler_ancestral", "lcm", "dpmpp_2s_ancestral_cfg_pp", "ddpm", "er_sde", "seeds_2"]
)
def test_noise_that_is_not_shared_is_told(
    least: World, sampler: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The watch sees it also where the person is drawn: here nothing is shared."""
    monkeypatch.setattr(SharedNoise, "__enter__", lambda _: None)
    least.sample(least.patch(1.0), sampler=sampler, latent=empty(1, 8, 8))
    assert is_warned(caplog)

"""Both streams draw the numbers that one stream draws alone, whatever function draws them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pack.infinite_id.noise import SharedNoise
from pack.infinite_id.streams import Streams
from torch import Tensor
from torch.overrides import TorchFunctionMode

LATENTS = (2, 4, 8, 8)
STREAMS = {"two streams": Streams(2), "a sweep of three": Streams(2, people=3)}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def pyramid(x: Tensor) -> Tensor:
    """Noise of several sizes, laid over one another."""
    b, c, h, w = x.shape
    noise = torch.randn_like(x)
    for side in (4, 2):
        small = torch.normal(0.0, 1.0, (b, c, h // side, w // side))
        noise += torch.nn.functional.interpolate(small, (h, w)) / side
    return noise


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "randn of numbers": lambda x: torch.randn(*x.shape),
    "randn of a tuple": lambda x: torch.randn(tuple(x.shape)),
    "randn of a list": lambda x: torch.randn(list(x.shape)),
    "randn of a size": lambda x: torch.randn(x.shape, dtype=torch.float64),
    "randn by keyword": lambda x: torch.randn(size=x.shape),
    "randn of a generator": lambda x: torch.randn(x.shape, generator=seeded(), device="cpu"),
    "randn into a tensor": lambda x: torch.randn(x.shape, out=torch.empty_like(x)),
    "randn_like": torch.randn_like,
    "randn_like by keyword": lambda x: torch.randn_like(input=x),
    "randn_like of another dtype": lambda x: torch.randn_like(x, dtype=torch.float16),
    "rand": lambda x: torch.rand(x.shape) - 0.5,
    "rand_like": torch.rand_like,
    "randint": lambda x: torch.randint(0, 9, x.shape),
    "randint up to": lambda x: torch.randint(9, size=x.shape),
    "normal of a size": lambda x: torch.normal(0.0, 1.0, x.shape),
    "normal of tensors": lambda x: torch.normal(x, torch.ones_like(x)),
    "normal of one tensor": lambda x: torch.normal(mean=x),
    "normal_": lambda x: torch.empty_like(x).normal_(generator=seeded()),
    "uniform_": lambda x: torch.empty_like(x).uniform_(-1, 1),
    "exponential_": lambda x: torch.empty_like(x).exponential_(),
    "nn.init.normal_": lambda x: torch.nn.init.normal_(torch.empty_like(x)),
    "bernoulli": lambda x: torch.bernoulli(torch.full_like(x, 0.3)),
    "Student's t": lambda x: torch.distributions.StudentT(torch.full_like(x, 3.0)).sample(),
    "Laplace": lambda x: torch.distributions.Laplace(0.0, 1.0).sample(x.shape),
    "a pyramid": pyramid,
    "rows of numbers": lambda x: torch.randn(len(x), x[0].numel()).view_as(x),
    "channels last": lambda x: torch.randn(len(x), 8, 8, 4).movedim(-1, 1),
    "one value for a channel": lambda x: torch.randn(*x.shape[:2], 1, 1).expand_as(x),
    "one latent after the other": lambda x: torch.stack([torch.randn(x.shape[1:]) for _ in x]),
    "one row after the other": lambda x: torch.cat([torch.randn(1, *x.shape[1:]) for _ in x]),
    "one latent after the other in place": lambda x: torch.stack(
        [torch.empty(x.shape[1:]).normal_() for _ in range(len(x))]
    ),
    "one for the whole batch": lambda x: torch.randn(x.shape[1:]).expand_as(x),
    "two for the whole batch": lambda x: (
        torch.randn(x.shape[1:]) + torch.randn(1, *x.shape[1:])
    ).expand_as(x),
}


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("name", DRAWS)
def test_each_stream_gets_what_it_would_get_alone(
    name: str, streams: Streams, caplog: pytest.LogCaptureFixture
) -> None:
    """In every step of a sampler, so that the generator is left where it would be."""
    draw = DRAWS[name]
    torch.manual_seed(1)
    alone = [draw(torch.zeros(LATENTS)) for _ in range(3)]
    noise = SharedNoise(streams, LATENTS)
    torch.manual_seed(1)
    with caplog.at_level(logging.WARNING), noise:
        found = []
        for _ in range(3):
            with noise.paused((streams.rows, *LATENTS[1:])):
                pass
            found.append(draw(torch.zeros(streams.rows, *LATENTS[1:])))
    for ours, theirs in zip(found, alone, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, streams.spread(theirs))
    assert not caplog.text


def test_a_tensor_in_place_is_filled_itself() -> None:
    x = torch.zeros(4, 4, 8, 8)
    out = torch.zeros(4, 4, 8, 8)
    with SharedNoise(Streams(2), LATENTS):
        assert x.normal_() is x
        assert torch.randn(4, 4, 8, 8, out=out) is out
    for filled in (x, out):
        assert torch.equal(filled[:2], filled[2:])
        assert filled.std() > 0.5


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: torch.randn(x.numel()).view_as(x),
        lambda x: torch.randn(8, 8, 4, len(x)).permute(3, 2, 0, 1),
        lambda x: torch.randn(2, *x.shape),
    ],
)
def test_noise_that_cannot_be_shared_is_told(
    draw: Callable[[Tensor], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), SharedNoise(Streams(2), LATENTS):
        draw(torch.zeros(4, 4, 8, 8))
        draw(torch.zeros(4, 4, 8, 8))
    assert caplog.text.count("both streams may get different noise") == 1


def test_some_rows_at_a_time_are_told(caplog: pytest.LogCaptureFixture) -> None:
    noise = SharedNoise(Streams(2), LATENTS)
    with caplog.at_level(logging.WARNING), noise:
        for _ in range(3):
            torch.randn(4, 8, 8)
        with noise.paused((4, 4, 8, 8)):
            pass
    assert "some rows at a time" in caplog.text


def test_small_shapes_are_left_alone() -> None:
    def draw() -> list[Tensor]:
        return [torch.randn(7), torch.randn(()), torch.rand(4), torch.randn(3, 4)]

    torch.manual_seed(1)
    expected = draw()
    torch.manual_seed(1)
    with SharedNoise(Streams(2), LATENTS):
        assert all(torch.equal(a, b) for a, b in zip(expected, draw(), strict=True))


def is_shared() -> bool:
    drawn = torch.randn(4, 4, 8, 8)
    return torch.equal(drawn[:2], drawn[2:])


SHAPE = (4, 4, 8, 8)


def test_paused_inside_and_over_outside() -> None:
    noise = SharedNoise(Streams(2), LATENTS)
    with noise:
        with noise.paused(SHAPE), noise.paused(SHAPE):
            assert not is_shared()
        assert is_shared()
    assert not is_shared()


def test_comes_back_after_an_exception_in_the_pause() -> None:
    noise = SharedNoise(Streams(2), LATENTS)
    with noise:
        with pytest.raises(KeyError), noise.paused(SHAPE):
            raise KeyError
        assert is_shared()


class Counting(TorchFunctionMode):
    """Another node's mode."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_the_modes_of_others_stay_where_they_are() -> None:
    """Only our own mode is taken off and put back, whatever lies above or below it."""
    below, above, noise = Counting(), Counting(), SharedNoise(Streams(2), LATENTS)
    with below, noise:
        with above:
            with noise.paused(SHAPE):
                assert not is_shared()
                seen = below.calls, above.calls
                torch.zeros(1)
                assert (below.calls, above.calls) == (seen[0] + 1, seen[1] + 1)
            assert is_shared()
        calls = above.calls
        torch.zeros(1)
        assert above.calls == calls
        assert is_shared()
    assert not is_shared()
    torch.zeros(1)


def test_it_leaves_from_below_a_mode_that_stays() -> None:
    above, noise = Counting(), SharedNoise(Streams(2), LATENTS)
    noise.__enter__()
    with above:
        noise.__exit__(None, None, None)
        assert not is_shared()
        assert above.calls
    calls = above.calls
    torch.zeros(1)
    assert above.calls == calls


def test_brownian_trees_share_their_noise() -> None:
    """The SDE samplers' noise: the tree of a doubled latent is the single tree, twice."""
    torchsde = pytest.importorskip("torchsde", reason="the host's requirement")

    def tree(shape: tuple[int, ...]) -> Tensor:
        return torchsde.BrownianTree(0.1, torch.zeros(shape), 10.0, entropy=3)(1.0, 2.0)

    alone = tree(LATENTS)
    with SharedNoise(Streams(2), LATENTS):
        both = tree((4, *LATENTS[1:]))
    assert torch.equal(both, torch.cat([alone, alone]))

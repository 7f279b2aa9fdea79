"""The noise that both streams share: what the identity stream gets alone, twice."""

import math
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch
from pack.infinite_id.noise import SharedNoise
from pack.infinite_id.streams import Streams
from torch import Tensor, overrides
from torch.distributions import Gamma, Laplace, Normal, StudentT
from torch.overrides import TorchFunctionMode

TWO = Streams(latents=2)
LATENT = (4, 8, 8)


def seeded(more: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(5 + more)


DOUBLED, SINGLE = (4, 4, 8, 8), (2, 4, 8, 8)
CALLS: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    "numbers": lambda shape: torch.randn(*shape),
    "tuple": torch.randn,
    "list": lambda shape: torch.randn(list(shape)),
    "size": lambda shape: torch.randn(torch.Size(shape), dtype=torch.float64),
    "keyword": lambda shape: torch.randn(size=shape),
    "generator": lambda shape: torch.randn(shape, generator=seeded(), device="cpu"),
    "like": lambda shape: torch.randn_like(torch.zeros(shape)),
    "like, keyword": lambda shape: torch.randn_like(input=torch.zeros(shape)),
    "out": lambda shape: torch.randn(shape, out=torch.zeros(shape), generator=seeded()),
    "rand": lambda shape: torch.rand(*shape),
    "rand_like": lambda shape: torch.rand_like(torch.zeros(shape)),
    "randint": lambda shape: torch.randint(-5, 5, size=shape, generator=seeded()),
    "normal": lambda shape: torch.normal(0.0, 2.0, shape),
    "normal of tensors": lambda shape: torch.normal(torch.zeros(shape), torch.full(shape, 2.0)),
    "normal_": lambda shape: torch.zeros(shape).normal_(1, 2, generator=seeded()),
    "uniform_": lambda shape: torch.zeros(shape).uniform_(-1, 1),
    "exponential_": lambda shape: torch.zeros(shape).exponential_(),
    "cauchy_": lambda shape: torch.zeros(shape).cauchy_(generator=seeded()),
    "log_normal_": lambda shape: torch.zeros(shape).log_normal_(),
    "bernoulli": lambda shape: torch.bernoulli(torch.full(shape, 0.3), generator=seeded()),
    "bernoulli_": lambda shape: torch.zeros(shape).bernoulli_(0.3),
    "poisson": lambda shape: torch.poisson(torch.full(shape, 2.0)),
    "dropout": lambda shape: torch.nn.functional.dropout(torch.ones(shape)),
    "init": lambda shape: torch.nn.init.trunc_normal_(torch.zeros(shape)),
    "Student's t": lambda shape: StudentT(1.0, 0.0, 0.2).rsample(shape),
    "Laplace": lambda shape: Laplace(0.0, 1.0).rsample(shape),
    "gamma": lambda shape: Gamma(torch.full(shape, 0.7), 1.0).sample(),
    "channels last": lambda shape: torch.randn_like(
        torch.zeros(shape).to(memory_format=torch.channels_last)
    ),
    "filled, channels last": lambda shape: (
        torch.zeros(shape).to(memory_format=torch.channels_last).normal_()
    ),
    "flat": lambda shape: torch.randn(math.prod(shape)).view(shape),
    "a row each": lambda shape: torch.randn(shape[0], math.prod(shape[1:])).view(shape),
    "channels behind": lambda shape: torch.randn(shape[0], 8, 8, 4).movedim(-1, 1),
    "one for each channel": lambda shape: torch.randn(*shape[:2], 1, 1).expand(shape).contiguous(),
    "pairs folded": lambda shape: torch.randn(shape[0] * 4, *shape[2:]).view(shape),
    "each from its line": lambda shape: torch.stack([torch.randn(LATENT) for _ in range(shape[0])]),
    "each, batched": lambda shape: torch.cat([torch.rand(1, *LATENT) for _ in range(shape[0])]),
    "each, filled": lambda shape: torch.stack([x.normal_() for x in torch.zeros(shape)]),
    "each, distribution": lambda shape: torch.stack(
        [Normal(0.0, 2.0).sample(LATENT) for _ in range(shape[0])]
    ),
    "each, seeded": lambda shape: torch.stack(
        [torch.randn(LATENT, generator=seeded(i % 2)) for i in range(shape[0])]
    ),
    "like, other dtype": lambda shape: torch.randn_like(torch.zeros(shape), dtype=torch.float16),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_noise_is_drawn_once_and_shared(call: Callable[[tuple[int, ...]], Tensor]) -> None:
    """The identity stream gets exactly what it would get alone, the text stream the same."""
    torch.manual_seed(1)
    alone = call(SINGLE)
    torch.manual_seed(1)
    with SharedNoise(TWO, SINGLE):
        both = call(DOUBLED)
    assert both.shape == DOUBLED
    assert both.dtype == alone.dtype
    assert torch.equal(both[:2], alone)
    assert torch.equal(both[2:], alone)
    assert both.is_contiguous() == alone.is_contiguous()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_generators_go_on_as_for_the_latents_alone(
    call: Callable[[tuple[int, ...]], Tensor],
) -> None:
    """Two draws of each kind, in two steps, and a number after them."""
    torch.manual_seed(1)
    alone = [call(SINGLE), call(SINGLE), torch.randn(7)]
    torch.manual_seed(1)
    noise = SharedNoise(TWO, SINGLE)
    with noise:
        both = [call(DOUBLED)]
        with noise.paused(DOUBLED):
            pass
        both += [call(DOUBLED), torch.randn(7)]
    assert torch.equal(both[2], alone[2])
    assert all(torch.equal(b, torch.cat([a, a])) for a, b in zip(alone[:2], both[:2], strict=True))


def test_other_resolutions_and_steps() -> None:
    """Noise pyramids, one noise for all channels, and all steps' noise at once."""
    for single, axis in (((2, 4, 19, 23), 0), ((2, 8, 4, 4), 0), ((2, 9, 9), 0), ((5, *SINGLE), 1)):
        double = [2 * n if i == axis else n for i, n in enumerate(single)]
        torch.manual_seed(1)
        alone = torch.randn(single)
        torch.manual_seed(1)
        with SharedNoise(Streams(2), (2, 5, 8, 8) if len(single) == 3 else SINGLE):
            both = torch.randn(double)
        assert torch.equal(both, torch.cat([alone, alone], axis))


def test_noise_around_values_that_differ() -> None:
    """Each copy has its own mean; its noise is that of the first."""
    means = torch.arange(4.0).view(4, 1, 1, 1).expand(DOUBLED) * 100
    torch.manual_seed(1)
    alone = torch.normal(torch.zeros(SINGLE), 2.0)
    torch.manual_seed(1)
    with SharedNoise(TWO, SINGLE):
        both = torch.normal(means, 2.0)
    torch.testing.assert_close(both - means, torch.cat([alone, alone]), atol=1e-4, rtol=0)


def test_a_draw_for_all_rows_at_once_is_left_alone() -> None:
    """One latent's noise that is broadcast, from different lines of a step."""
    torch.manual_seed(1)
    expected = [torch.randn(LATENT), torch.randn(LATENT), torch.randn(1, *LATENT)]
    torch.manual_seed(1)
    with SharedNoise(TWO, SINGLE):
        first = torch.randn(LATENT)
        second = torch.randn(LATENT)
        found = [first, second, torch.randn(1, *LATENT)]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_each_latent_after_the_latents_grew() -> None:
    torch.manual_seed(1)
    alone = [torch.randn(4, 16, 16) for _ in range(2)]
    torch.manual_seed(1)
    noise = SharedNoise(TWO, SINGLE)
    with noise:
        with noise.paused((4, 4, 16, 16)):
            pass
        both = [torch.randn(4, 16, 16) for _ in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(2 * alone, both, strict=True))


class Other(TorchFunctionMode):
    """Another pack's mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_modes_of_others_are_left_in_place() -> None:
    """Entered over ours and left later than it, or within the pause; with ours out meanwhile."""
    other, later = Other(), Other()
    noise = SharedNoise(TWO, SINGLE)
    with Other() as below:
        noise.__enter__()
        other.__enter__()
        with noise.paused(DOUBLED):
            assert stack() == [below, other]
            later.__enter__()
        assert stack() == [below, noise, other, later]
        noise.__exit__(None, None, None)
        assert stack() == [below, other, later]
        later.__exit__(None, None, None)
        other.__exit__(None, None, None)
    assert stack() == []


def test_a_mode_that_others_took_away_is_not_put_back() -> None:
    noise = SharedNoise(TWO, SINGLE)
    with noise:
        overrides._pop_mode()
        with noise.paused(DOUBLED):
            pass
        assert stack() == []
    assert stack() == []


def stack() -> list[TorchFunctionMode]:
    return overrides._get_current_function_mode_stack()


def test_nothing_is_process_wide() -> None:
    """Torch's own `with` on a dispatch mode tells all threads that one is active."""
    from torch.utils import _python_dispatch as dispatch

    flags = [name for name in vars(dispatch) if name.startswith("_is_in_")]
    before = [getattr(dispatch, name) for name in flags]
    assert flags
    seen = []
    with SharedNoise(TWO, SINGLE):
        torch.randn(DOUBLED)
        torch.stack([x.clone() for x in torch.zeros(2)])
        thread = Thread(target=lambda: seen.append(torch.randn(DOUBLED)))
        thread.start()
        thread.join()
        assert [getattr(dispatch, name) for name in flags] == before
    assert not torch.equal(seen[0][:2], seen[0][2:])


def test_other_shapes_and_functions_are_left_alone() -> None:
    def draw() -> list[Tensor]:
        shapes: list[tuple[int, ...]] = [(3, 4, 8, 8), (2, 4, 8, 8), (7,), (4,), (), (4, 9, 9)]
        return [*(torch.randn(shape) for shape in shapes), torch.randperm(4), torch.ones(DOUBLED)]

    torch.manual_seed(1)
    expected = draw()
    torch.manual_seed(1)
    with SharedNoise(TWO, SINGLE):
        found = draw()
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_paused_inside_and_over_outside() -> None:
    noise = SharedNoise(TWO, SINGLE)
    with noise:
        with noise.paused(DOUBLED), noise.paused(DOUBLED):
            drawn = torch.randn(DOUBLED)
            assert not torch.equal(drawn[:2], drawn[2:])
        drawn = torch.randn(DOUBLED)
        assert torch.equal(drawn[:2], drawn[2:])
    drawn = torch.randn(DOUBLED)
    assert not torch.equal(drawn[:2], drawn[2:])


def test_comes_back_after_an_exception_in_the_pause() -> None:
    noise = SharedNoise(TWO, SINGLE)
    with noise:
        with pytest.raises(KeyError), noise.paused(DOUBLED):
            raise KeyError
        drawn = torch.randn(DOUBLED)
        assert torch.equal(drawn[:2], drawn[2:])


def test_brownian_trees_share_their_noise() -> None:
    """The SDE samplers' noise: the tree of a doubled latent is the single tree, twice."""
    torchsde = pytest.importorskip("torchsde", reason="the host's requirement")

    def tree(shape: tuple[int, ...]) -> Tensor:
        return torchsde.BrownianTree(0.1, torch.zeros(shape), 10.0, entropy=3)(1.0, 2.0)

    alone = tree(SINGLE)
    with SharedNoise(TWO, SINGLE):
        both = tree(DOUBLED)
    assert torch.equal(both, torch.cat([alone, alone]))

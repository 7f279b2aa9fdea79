"""Rows of the two streams, and the noise that they share."""

from collections.abc import Callable

import pytest
import torch
from pack.infinite_id.streams import SharedNoise, Streams
from torch import Tensor

TWO = Streams(latents=2)


LAYOUTS = [TWO, Streams(3, has_text=False), Streams(1), Streams(2, people=3)]


@pytest.mark.parametrize("streams", LAYOUTS)
@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_split_and_join_are_inverse(streams: Streams, chunks: int) -> None:
    x = torch.randn(chunks * streams.rows, 5, 4)
    identity, text = streams.split(x, chunks)
    assert len(identity) == chunks * streams.identity
    assert len(text) == chunks * (streams.rows - streams.identity)
    assert torch.equal(streams.join(identity, text, chunks), x)


def test_split_takes_the_identity_rows_of_each_chunk() -> None:
    rows = torch.arange(TWO.rows)  # identity 0 and 1, text 2 and 3
    x = torch.cat([rows, rows + 10])[:, None, None].float()
    identity, text = TWO.split(x, chunks=2)
    assert identity.flatten().tolist() == [0, 1, 10, 11]
    assert text.flatten().tolist() == [2, 3, 12, 13]


def test_rows_cut_into_tiles_stay_with_their_stream() -> None:
    """HyperTile makes every row several rows, tiles inside."""
    tiles = 3
    x = torch.arange(2 * TWO.rows).repeat_interleave(tiles)[:, None, None].float()
    identity, text = TWO.split(x, chunks=2)
    assert identity.flatten().tolist() == [0, 0, 0, 1, 1, 1, 4, 4, 4, 5, 5, 5]
    assert torch.equal(TWO.join(identity, text, chunks=2), x)


def test_a_sweep_reads_one_text_row_for_all_its_people() -> None:
    """Two latents (10 and 20), three people: people come first, the text rows last."""
    streams = Streams(latents=2, people=3)
    latents = torch.tensor([10, 20])
    rows = streams.spread(latents)
    assert rows.tolist() == [10, 20] * 4
    rows[: streams.identity] += torch.tensor([1, 1, 2, 2, 3, 3])
    assert streams.collect(rows).tolist() == [11, 12, 13, 21, 22, 23]
    identity, text = streams.part(torch.cat([rows, -rows])[:, None, None], chunks=2)
    shared = streams.share_text(text).flatten()
    assert shared.tolist() == [10, 20] * 3 + [-10, -20] * 3
    assert (identity.flatten() - shared).abs().tolist() == [1, 1, 2, 2, 3, 3] * 2


def test_double_repeats_the_single_stream() -> None:
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(TWO.spread(x), torch.cat([x, x]))
    assert torch.equal(Streams(2, has_text=False).spread(x), x)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


DOUBLED, SINGLE = (4, 4, 8, 8), (2, 4, 8, 8)
CALLS: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    "numbers": lambda shape: torch.randn(*shape),
    "tuple": torch.randn,
    "list": lambda shape: torch.randn(list(shape)),
    "size": lambda shape: torch.randn(torch.Size(shape), dtype=torch.float64),
    "keyword": lambda shape: torch.randn(size=shape),
    "generator": lambda shape: torch.randn(shape, generator=seeded(), device="cpu"),
    "like": lambda shape: torch.randn_like(torch.zeros(shape)),
    "like, other dtype": lambda shape: torch.randn_like(torch.zeros(shape), dtype=torch.float16),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_noise_is_drawn_once_and_shared(call: Callable[[tuple[int, ...]], Tensor]) -> None:
    """The identity stream gets exactly what it would get alone, the text stream the same."""
    torch.manual_seed(1)
    alone = call(SINGLE)
    torch.manual_seed(1)
    with SharedNoise(TWO, channels=4):
        both = call(DOUBLED)
    assert both.shape == DOUBLED
    assert both.dtype == alone.dtype
    assert torch.equal(both[:2], alone)
    assert torch.equal(both[2:], alone)


def test_other_shapes_and_functions_are_left_alone() -> None:
    torch.manual_seed(1)
    expected = [torch.randn(4, 3, 8, 8), torch.randn(7), torch.rand(4, 4, 8, 8), torch.randn(())]
    torch.manual_seed(1)
    with SharedNoise(TWO, channels=4):
        found = [torch.randn(4, 3, 8, 8), torch.randn(7), torch.rand(4, 4, 8, 8), torch.randn(())]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_paused_inside_and_over_outside() -> None:
    noise = SharedNoise(TWO, channels=4)
    with noise:
        with noise.paused(), noise.paused():
            drawn = torch.randn(DOUBLED)
            assert not torch.equal(drawn[:2], drawn[2:])
        drawn = torch.randn(DOUBLED)
        assert torch.equal(drawn[:2], drawn[2:])
    drawn = torch.randn(DOUBLED)
    assert not torch.equal(drawn[:2], drawn[2:])


def test_comes_back_after_an_exception_in_the_pause() -> None:
    noise = SharedNoise(TWO, channels=4)
    with noise:
        with pytest.raises(KeyError), noise.paused():
            raise KeyError
        drawn = torch.randn(DOUBLED)
        assert torch.equal(drawn[:2], drawn[2:])


def test_brownian_trees_share_their_noise() -> None:
    """The SDE samplers' noise: the tree of a doubled latent is the single tree, twice."""
    torchsde = pytest.importorskip("torchsde", reason="the host's requirement")

    def tree(shape: tuple[int, ...]) -> Tensor:
        return torchsde.BrownianTree(0.1, torch.zeros(shape), 10.0, entropy=3)(1.0, 2.0)

    alone = tree(SINGLE)
    with SharedNoise(TWO, channels=4):
        both = tree(DOUBLED)
    assert torch.equal(both, torch.cat([alone, alone]))

"""Rows of the two streams."""

import pytest
import torch
from pack.infinite_id.streams import Layout, Streams

TWO = Streams(latents=2)
ALONE = Streams(latents=2, has_text=False)


STREAMS = [TWO, Streams(3, has_text=False), Streams(1), Streams(2, people=3)]


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_split_and_join_are_inverse(streams: Streams, chunks: int) -> None:
    layout = Layout(streams, chunks)
    x = torch.randn(chunks * streams.rows, 5, 4)
    identity, text = layout.split(x)
    assert len(identity) == chunks * streams.identity
    assert len(text) == chunks * (streams.rows - streams.identity)
    assert torch.equal(layout.join(identity, text), x)


def test_split_takes_the_identity_rows_of_each_chunk() -> None:
    rows = torch.arange(TWO.rows)  # identity 0 and 1, text 2 and 3
    x = torch.cat([rows, rows + 10])[:, None, None].float()
    identity, text = Layout(TWO, chunks=2).split(x)
    assert identity.flatten().tolist() == [0, 1, 10, 11]
    assert text.flatten().tolist() == [2, 3, 12, 13]


@pytest.mark.parametrize("has_one_text", [False, True])
def test_rows_cut_into_tiles_stay_with_their_stream(has_one_text: bool) -> None:
    """HyperTile makes every row several rows, tiles inside."""
    tiles, layout = 3, Layout(TWO, 2, has_one_text)
    x = torch.arange(6 if has_one_text else 8).repeat_interleave(tiles)[:, None, None].float()
    identity, text = layout.split(x)
    second = [2, 2, 2, 3, 3, 3] if has_one_text else [4, 4, 4, 5, 5, 5]
    assert identity.flatten().tolist() == [0, 0, 0, 1, 1, 1, *second]
    assert len(text) == (6 if has_one_text else 12)
    assert torch.equal(layout.join(identity, text), x)


@pytest.mark.parametrize("people", [1, 3])
def test_one_text_for_all_chunks(people: int) -> None:
    """Behind all identity rows are the first chunk's text rows; back in each chunk they are all."""
    streams = Streams(2, people)
    each, once = Layout(streams, 3), Layout(streams, 3, has_one_text=True)
    x = torch.randn(3 * streams.rows, 5)
    identity, text = each.split(x)
    found = once.arrange(x, each)
    assert torch.equal(found, torch.cat([identity, text[:2]]))
    assert torch.equal(torch.cat(once.split(found)), found)
    assert torch.equal(each.arrange(found, once), each.join(identity, text[:2].repeat(3, 1)))


@pytest.mark.parametrize("has_one_text", [False, True])
def test_text_rows_that_a_forward_adds(has_one_text: bool) -> None:
    """They see what the identity's rows see, and are not given back."""
    alone, both = Layout(ALONE, 2), Layout(TWO, 2, has_one_text)
    x = torch.tensor([10, 20, -10, -20])
    added = [10, 20, -10, -20, 10, 20] if has_one_text else [10, 20] * 2 + [-10, -20] * 2
    assert both.arrange(x, alone).tolist() == added
    assert torch.equal(alone.arrange(both.arrange(x, alone), both), x)


def test_a_sweep_reads_one_text_row_for_all_its_people() -> None:
    """Two latents (10 and 20), three people: people come first, the text rows last."""
    streams = Streams(latents=2, people=3)
    latents = torch.tensor([10, 20])
    rows = streams.spread(latents)
    assert rows.tolist() == [10, 20] * 4
    rows[: streams.identity] += torch.tensor([1, 1, 2, 2, 3, 3])
    assert streams.collect(rows).tolist() == [11, 12, 13, 21, 22, 23]
    identity, text = Layout(streams, chunks=2).part(torch.cat([rows, -rows]))
    read = text.expand_as(identity).flatten()
    assert read.tolist() == [10, 20] * 3 + [-10, -20] * 3
    assert (identity.flatten() - read).abs().tolist() == [1, 1, 2, 2, 3, 3] * 2


def test_double_repeats_the_single_stream() -> None:
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(TWO.spread(x), torch.cat([x, x]))
    assert torch.equal(ALONE.spread(x), x)

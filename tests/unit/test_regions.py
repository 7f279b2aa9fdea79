"""Columns of a picture."""

from __future__ import annotations

import pytest
import torch
from pack.infinite_id.regions import SIDE, column


@pytest.mark.parametrize("columns", [1, 2, 3, 8])
@pytest.mark.parametrize("softness", [0.0, 0.1, 1.0])
def test_columns_share_the_picture(columns: int, softness: float) -> None:
    masks = [column(number, columns, softness) for number in range(1, columns + 1)]
    assert all(mask.shape == (1, SIDE, SIDE) for mask in masks)
    assert all(mask.min() >= 0 and mask.max() <= 1 for mask in masks)
    assert torch.allclose(sum(masks, torch.zeros(1)), torch.ones(1), atol=1e-6)


def test_a_border_fades_over_its_share_of_a_column() -> None:
    """By hand: two columns of 256 pixels, a border of half a column from pixel 192 to 320."""
    row = column(1, 2, 0.5)[0, 7]
    by_hand = [1.0 if x < 192 else 0.0 if x >= 320 else (320 - x - 0.5) / 128 for x in range(SIDE)]
    assert row.tolist() == pytest.approx(by_hand, abs=1e-6)


def test_a_hard_border_is_hard() -> None:
    assert column(2, 2, 0.0)[0, 0].tolist() == [0.0] * 256 + [1.0] * 256

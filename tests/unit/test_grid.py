"""Grids of values, as text."""

import pytest
from pack.infinite_id.grid import Grid, read_value


def test_every_column_with_every_row() -> None:
    grid = Grid.read("0.6\n\n 1 \n", "photo\nstyle (AdaIN-mean)")
    assert grid.columns == ("0.6", "1")
    assert grid.cells == [
        (0.6, "photo"),
        (1, "photo"),
        (0.6, "style (AdaIN-mean)"),
        (1, "style (AdaIN-mean)"),
    ]


def test_no_rows_are_one_row() -> None:
    grid = Grid.read("a man, smiling\na woman", " \n")
    assert grid.rows == ("",)
    assert grid.cells == [("a man, smiling", ""), ("a woman", "")]


def test_no_column_is_refused() -> None:
    with pytest.raises(ValueError, match="columns is empty"):
        Grid.read("\n", "photo")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-3", -3),
        (".5", 0.5),
        ("2.", 2.0),
        ("1e-3", 0.001),
        ("True", True),
        ("false", False),
        ('"12"', "12"),
        ('"', '"'),
        ("nan", "nan"),
        ("1, 2", "1, 2"),
        ("face.safetensors", "face.safetensors"),
    ],
)
def test_values(text: str, value: object) -> None:
    found = read_value(text)
    assert found == value
    assert type(found) is type(value)

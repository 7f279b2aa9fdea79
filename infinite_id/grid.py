"""Grids of values: all pairs of a column's and a row's, as a user writes them."""

import re
from dataclasses import dataclass
from itertools import product

Value = str | float | bool
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_SWITCHES = {"true": True, "false": False}


@dataclass(frozen=True)
class Grid:
    """The headings of a grid's columns and rows; `rows` holds one empty heading if it is a line."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]

    @classmethod
    def read(cls, columns: str, rows: str) -> "Grid":
        """Read one heading from each line that is not blank.

        Raises:
            ValueError: if there is no column.
        """
        across, down = (
            tuple(line.strip() for line in text.splitlines() if line.strip())
            for text in (columns, rows)
        )
        if not across:
            raise ValueError("columns is empty. Write one value on each line.")
        return cls(across, down or ("",))

    @property
    def cells(self) -> list[tuple[Value, Value]]:
        """The column's and the row's value of each cell, row by row."""
        pairs = product(self.rows, self.columns)
        return [(read_value(column), read_value(row)) for row, column in pairs]


def read_value(text: str) -> Value:
    """Return what a line stands for: a number, true or false, or a text.

    Quotes around a text are taken off: `"12"` is a text.
    """
    if text.lower() in _SWITCHES:
        return _SWITCHES[text.lower()]
    if _NUMBER.fullmatch(text):
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1] if quoted else text

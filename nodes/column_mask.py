"""A column of the picture as a mask."""

from comfy_api.latest import io

from ..infinite_id import regions
from . import sockets
from .node import Node


class ColumnMask(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDColumnMask",
            display_name="Column Mask",
            category=sockets.CATEGORY,
            description="A mask of one column of the picture, for people side by side: one node "
            "for each person. It fits every picture size.",
            search_aliases=["half mask", "left right mask", "two people", "regional mask", "split"],
            inputs=[
                io.Int.Input(
                    "column",
                    default=1,
                    min=1,
                    max=8,
                    tooltip="Which column the mask shows, counted from the left: 1 is the first.",
                ),
                io.Int.Input(
                    "columns",
                    default=2,
                    min=1,
                    max=8,
                    tooltip="How many columns of equal width the picture has.",
                ),
                io.Float.Input(
                    "feather",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Width of the soft border between neighbours, in column widths. Both "
                    "masks together are 1 there. 0: a hard border.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    "mask",
                    display_name="mask",
                    tooltip="For Apply Infinite-ID, or for Conditioning (Set Mask).",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, column: int | None = None, columns: int | None = None) -> bool | str:
        """Check typed values. A value from a wire is None here; the run checks it."""
        if column is None or columns is None:
            return True
        return _explain(column, columns) or True

    @classmethod
    def execute(cls, column: int, columns: int, feather: float) -> io.NodeOutput:
        wrong = _explain(column, columns)
        if wrong:
            raise ValueError(wrong)
        return io.NodeOutput(regions.column(column, columns, feather))


def _explain(column: int, columns: int) -> str:
    if column <= columns:
        return ""
    return f"Column Mask: there is no column {column} of {columns}. Choose 1 to {columns}."

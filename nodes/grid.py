"""All pairs of two lists of values, for one queue."""

from comfy_api.latest import io

from ..infinite_id.grid import Grid
from . import sockets
from .node import Node


class GridOfVariations(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDGrid",
            display_name="Grid of Variations",
            category=sockets.CATEGORY,
            description="Draws many variations from one queue: every value of 'columns' with every "
            "value of 'rows', such as weights with styles, adapters, or prompts. Connect a value "
            "to the widget that is to vary, and the grid to Contact Sheet.",
            search_aliases=["xy plot", "prompt list", "compare adapters", "weight x style", "list"],
            inputs=[
                io.String.Input(
                    "columns",
                    default="0.6\n0.8\n1.0",
                    multiline=True,
                    tooltip="One value on each line: numbers, choices such as a style or a file's "
                    "name, or whole prompts. Quotes make a text of a number.",
                ),
                io.String.Input(
                    "rows",
                    default="photo\nstyle (AdaIN-mean)",
                    multiline=True,
                    tooltip="The same for the rows. Empty: one row, with nothing to connect.",
                ),
            ],
            outputs=[
                io.AnyType.Output(
                    "column_value",
                    display_name="column value",
                    tooltip="For the widget that 'columns' is about, such as weight. Everything "
                    "behind it runs once for each cell.",
                    is_output_list=True,
                ),
                io.AnyType.Output(
                    "row_value",
                    display_name="row value",
                    tooltip="For the widget that 'rows' is about, such as style.",
                    is_output_list=True,
                ),
                sockets.Grid.Output(
                    "grid", display_name="grid", tooltip="The headings, for Contact Sheet."
                ),
            ],
        )

    @classmethod
    def execute(cls, columns: str, rows: str) -> io.NodeOutput:
        try:
            grid = Grid.read(columns, rows)
        except ValueError as error:
            raise ValueError(f"Grid of Variations: {error}") from error
        across, down = zip(*grid.cells, strict=True)
        return io.NodeOutput(list(across), list(down), grid)

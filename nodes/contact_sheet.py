"""Sheets of pictures: a grid with labels."""

from collections.abc import Sequence

import torch
from comfy_api.latest import io, ui

from ..infinite_id.grid import Grid
from ..infinite_id.sheet import draw_sheet
from . import sockets
from .node import Node


class ContactSheet(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDContactSheet",
            display_name="Contact Sheet",
            category=sockets.CATEGORY,
            description="Puts pictures side by side with labels, as one picture to compare and "
            "to save: a sweep as a row, further batches as rows below it.",
            search_aliases=["image grid", "comparison grid", "plot", "collage"],
            is_input_list=True,
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="A batch of pictures, such as a sweep, or a list of them.",
                ),
                io.String.Input(
                    "labels",
                    default="",
                    multiline=True,
                    tooltip="One line for each picture of a batch, written below it; the same in "
                    "every row. Missing lines stay blank, further ones are left out.",
                ),
                io.String.Input(
                    "row_labels",
                    default="",
                    multiline=True,
                    tooltip="One line for each batch, written beside its row.",
                ),
                io.String.Input("title", default="", tooltip="Above everything; may be empty."),
                io.Int.Input(
                    "columns",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Pictures in a row. 0: up to eight in one row, more in a square.",
                ),
                io.Int.Input(
                    "cell_size",
                    default=0,
                    min=0,
                    max=4096,
                    step=8,
                    tooltip="The longer side of each picture on the sheet, in pixels. 0: as large "
                    "as the first picture is.",
                ),
                io.Int.Input(
                    "gap",
                    default=8,
                    max=256,
                    min=0,
                    tooltip="Pixels between the pictures.",
                    advanced=True,
                ),
                io.Int.Input(
                    "margin",
                    default=16,
                    max=256,
                    min=0,
                    tooltip="Pixels around the whole sheet.",
                    advanced=True,
                ),
                *(
                    io.Image.Input(
                        f"images_{number}",
                        optional=True,
                        tooltip="A further batch, in rows below: the same sweep in another style, "
                        "for example. Other sizes are fitted to the first picture's.",
                    )
                    for number in (2, 3, 4)
                ),
                sockets.Grid.Input(
                    "grid",
                    optional=True,
                    tooltip="From Grid of Variations: sets columns, labels and row_labels by its "
                    "values.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "sheet", display_name="sheet", tooltip="One picture, for Save Image."
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        images: list[torch.Tensor],
        labels: list[str],
        row_labels: list[str],
        title: list[str],
        columns: list[int],
        cell_size: list[int],
        gap: list[int],
        margin: list[int],
        images_2: Sequence[torch.Tensor] = (),
        images_3: Sequence[torch.Tensor] = (),
        images_4: Sequence[torch.Tensor] = (),
        grid: Sequence[Grid] = (),
    ) -> io.NodeOutput:
        below = [batch for batch in (images_2, images_3, images_4) if batch]
        captions, asides = "\n".join(labels).splitlines(), "\n".join(row_labels).splitlines()
        rows, across = [images], columns[0]
        if grid:
            rows = _deal(images, grid[0])
            captions = [
                heading
                for heading, cell in zip(grid[0].columns, rows[0], strict=True)
                for _ in cell
            ]
            asides, across = list(grid[0].rows), len(captions)
        sheet = draw_sheet(
            [*rows, *below], captions, asides, title[0], across, cell_size[0], gap[0], margin[0]
        )
        return io.NodeOutput(sheet, ui=ui.PreviewImage(sheet, cls=cls))


def _deal(cells: list[torch.Tensor], grid: Grid) -> list[list[torch.Tensor]]:
    """Deal the cells' batches out to rows. Raises ValueError if there are not as many as cells."""
    across, down = len(grid.columns), len(grid.rows)
    if len(cells) != across * down:
        raise ValueError(
            f"Contact Sheet: 'images' brings {len(cells)} batches, and the grid has {across} x "
            f"{down} cells. Connect 'column value' or 'row value' to a node before the pictures, "
            "and nothing that joins them on their way."
        )
    return [cells[first : first + across] for first in range(0, len(cells), across)]

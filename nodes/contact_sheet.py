"""Sheets of pictures: a grid with labels."""

import torch
from comfy_api.latest import io, ui

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
            inputs=[
                io.Image.Input("images", tooltip="A batch of pictures, such as a sweep."),
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
        images: torch.Tensor,
        labels: str,
        row_labels: str,
        title: str,
        columns: int,
        cell_size: int,
        gap: int,
        margin: int,
        images_2: torch.Tensor | None = None,
        images_3: torch.Tensor | None = None,
        images_4: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        given = (images, images_2, images_3, images_4)
        batches = [batch for batch in given if batch is not None]
        sheet = draw_sheet(
            batches,
            labels.splitlines(),
            row_labels.splitlines(),
            title,
            columns,
            cell_size,
            gap,
            margin,
        )
        return io.NodeOutput(sheet, ui=ui.PreviewImage(sheet, cls=cls))

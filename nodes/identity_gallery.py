"""All identity files at a glance."""

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..infinite_id.adapters.formats import FormatError
from ..infinite_id.identities.identity_file import Card, read_card
from ..infinite_id.sheet import draw_sheet
from . import folders, sockets
from .node import Node
from .slow_folders import show

SIDE = 128
_EMPTY = 0.8
"""Grey of a cell whose file has no thumbnail."""


class IdentityGallery(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDIdentityGallery",
            display_name="Identity Gallery",
            category=sockets.CATEGORY,
            description="Shows all identity files with their faces and names, as Load Identity "
            "lists them. Put it on the canvas and queue; nothing else is needed.",
            search_aliases=["list identities", "saved faces", "who is who", "thumbnails"],
            inputs=[
                io.String.Input(
                    "search",
                    default="",
                    tooltip="Only files whose name holds this text. Empty: all.",
                )
            ],
            outputs=[
                io.Image.Output(
                    "sheet",
                    display_name="sheet",
                    tooltip="The faces with their names; grey where a file has no thumbnail.",
                ),
                io.String.Output(
                    "info",
                    display_name="info",
                    tooltip="A line for each file: its adapter, the number of its photos, or why "
                    "it cannot be read.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        return float("nan")  # files come and go: look again each time

    @classmethod
    def execute(cls, search: str) -> io.NodeOutput:
        cards, lines = {}, []
        for name in folders.list_identities():
            if search.lower() not in name.lower():
                continue
            shown = show(name)
            try:
                card = read_card(folders.find_identity(name))
            except (FormatError, OSError) as error:
                lines.append(f"{shown}: PROBLEM: {error}")
                continue
            cards[shown] = card
            count = len(card.labels)
            lines.append(f"{shown}: {count} photo{'s' * (count != 1)}, made with {card.adapter}")
        if not cards:
            wanted = f" with '{search}' in its name" if search else ""
            reasons = "".join(f" {line}" for line in lines[:3])
            raise ValueError(
                f"Identity Gallery: there is no identity file{wanted} yet. Save Identity writes "
                f"one.{reasons}"
            )
        faces = [_to_image(card) for card in cards.values()]
        sheet = draw_sheet([faces], list(cards), [], "", 0, SIDE, 8, 16)
        return io.NodeOutput(sheet, "\n".join(lines), ui=ui.PreviewImage(sheet, cls=cls))


def _to_image(card: Card) -> torch.Tensor:
    if card.thumbnail is None:
        return torch.full((1, SIDE, SIDE, 3), _EMPTY)
    return card.thumbnail[None].float() / 255

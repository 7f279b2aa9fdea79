"""What the server loads: the registration, and an empty node list."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .host import register


class MiniatureExtension(ComfyExtension):
    async def on_load(self) -> None:
        register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return []

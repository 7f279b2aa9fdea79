"""A tiny model of SDXL's shape for demo and tests; the host's stock loader nodes load it.

A development package: put it into a server's `custom_nodes/` to make the server recognise the
miniature's files. It brings no nodes of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .extension import MiniatureExtension


async def comfy_entrypoint() -> MiniatureExtension:
    # Imported here: the package's command lines start without a host on the path.
    from .extension import MiniatureExtension

    return MiniatureExtension()

"""`python -m dev serve`: ComfyUI's page with the pack, and templates that run on the miniature."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from ..gallery.graphs import save
from ..gallery.miniature import gallery_models, running_gallery
from ..gallery.workflow import read
from .cache import step
from .server import PACK
from .server_api import ServerError

FIRST = "photo_to_person"
"""The template that the page opens with."""


def serve() -> int:
    """Run a server until Ctrl-C; its output goes to a temporary folder."""
    small = gallery_models()
    with ExitStack() as stack:
        with step("Starting ComfyUI"):
            server = stack.enter_context(running_gallery(small))
        fit_templates(server.base / "custom_nodes" / PACK / "workflows", small.values)
        first = f"{server.url}/?template={FIRST}&source={PACK}"
        with suppress(KeyboardInterrupt):
            print(f"Open {first}; more under Templates, {PACK}. Ctrl-C ends it.", flush=True)
            while server.answers():
                time.sleep(1)
            raise ServerError("ComfyUI has ended", server.log)
    return 0


def fit_templates(folder: Path, values: Mapping[str, Any]) -> None:
    """Change the workflows of an installed copy to the available models and their sizes."""
    for path in folder.glob("*.json"):
        save(read(path, values), path)

"""A workflow's picture for the template browser, made by running it on the miniature."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ..dev.server_api import Server, ServerError
from .workflow import read, to_prompt

SIDE = 512
MOST_BYTES = 30_000


def make_thumbnail(server: Server, path: Path, values: Mapping[str, Any]) -> float:
    """Run a workflow, write what it saved beside it, and return how many seconds that took.

    Raises ServerError when a node complains.
    """
    prompt = to_prompt(read(path, values))
    run = server.queue(prompt)
    if run.errors:
        raise ServerError(f"{path.name}: {run.errors[0].message}", server.log)
    nodes = {prompt[node]["class_type"]: node for node in run.outputs}
    saved = nodes.get("SaveImage") or nodes["InfiniteIDSaveIdentity"]
    with Image.open(server.files(run, saved)[0]) as picture:
        path.with_suffix(".jpg").write_bytes(_jpeg(picture.convert("RGB")))
    return sum(run.seconds.values())


def _jpeg(picture: Image.Image) -> bytes:
    """Encode a picture at about the size in the browser, and in few bytes."""
    scale = SIDE / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    shown = picture.resize(size, Image.Resampling.BICUBIC)
    data = b""
    for quality in range(90, 20, -5):
        buffer = io.BytesIO()
        shown.save(buffer, "JPEG", quality=quality, optimize=True)
        data = buffer.getvalue()
        if len(data) <= MOST_BYTES:
            break
    return data

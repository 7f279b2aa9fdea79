"""A report on the installation, as a text to copy when asking for help."""

import re
from collections.abc import Iterable, Iterator
from os.path import realpath
from pathlib import Path

from comfy_api.latest import io, ui

from . import folders, inventory, sockets
from .node import Node


class Diagnose(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDDiagnose",
            display_name="Infinite-ID Diagnose",
            category=sockets.CATEGORY,
            description="Says what is here and what is missing: versions, devices, onnxruntime's "
            "providers, the memory that a picture takes, the folders searched, every adapter, face "
            "model and CLIP vision model found and what it was recognised as, and what each of the "
            "pack's workflows lacks. Paste it into a report.",
            search_aliases=["infinite-id info", "troubleshoot", "versions", "missing models"],
            outputs=[
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="The text that the node gives. Your home folder is written as ~.",
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls) -> float:
        return float("nan")  # files come and go: look again each time

    @classmethod
    def execute(cls) -> io.NodeOutput:
        text = compose()
        return io.NodeOutput(text, ui=ui.PreviewText(text))


def compose() -> str:
    """Return the whole report, without the name of the user's home folder."""
    sections: dict[str, list[Iterable[str]]] = {
        "Presets": [inventory.list_presets()],
        "Versions": [inventory.list_versions()],
        "Devices": [inventory.list_devices(), inventory.list_face_runtime()],
        "Memory": [inventory.list_memory()],
        "Adapters": [inventory.list_folders(folders.ADAPTERS), inventory.list_adapters()],
        "Face models": [
            inventory.list_folders([folders.FACE_MODELS]),
            inventory.list_face_packs(),
        ],
        "CLIP vision": [
            inventory.list_folders([inventory.CLIP_VISION]),
            inventory.list_clip_vision(),
        ],
        "Identities": [inventory.list_folders([folders.IDENTITIES])],
        "Workflows": [inventory.list_gaps()],
    }
    lines = []
    for title, parts in sections.items():
        lines += [f"\n## {title}", *(f"- {line}" for part in parts for line in _read(part))]
    text = "\n".join(lines).strip()
    return shorten_home(text.encode(errors="backslashreplace").decode())


def _read(part: Iterable[str]) -> Iterator[str]:
    """Yield the lines of one part of the report. An OSError ends this part alone, with a line."""
    try:
        yield from part
    except OSError as error:
        yield f"PROBLEM: the rest cannot be read: {error}"


def shorten_home(text: str) -> str:
    """Replace the user's home folder, which often contains the user's name, by ~."""
    try:
        own = Path.home()
    except RuntimeError:  # a container's account may have none
        return text
    for home in {own, Path(realpath(own))} - {Path(own.anchor)}:
        text = re.sub(rf"{re.escape(str(home))}(?![\w.-])", "~", text)
    return text

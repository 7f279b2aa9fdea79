"""Draws workflows: nodes in columns, wires between them, saved as the page saves a graph.

The server says which inputs and outputs a node has, so that a drawn file is what the page would
write. Nodes are named by their ids, outputs by what the page shows, `_` for spaces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SEEDS = {"seed", "noise_seed"}
LEFT, TOP, GAP = 40, 80, 50
COLUMN = 390  # from one column's left edge to the next
TITLE, ROW = 40, 26
Info = Mapping[str, Any]


@dataclass(frozen=True)
class Output:
    """One output of a node on the canvas."""

    node: Node
    slot: int


@dataclass(eq=False)
class Node:
    """A node on the canvas, as the page stores it."""

    data: dict[str, Any]

    def __getitem__(self, name: str) -> Output:
        names = [output["name"].replace(" ", "_") for output in self.data["outputs"]]
        return Output(self, names.index(name))


@dataclass
class Graph:
    """A workflow being drawn; columns are filled from the top."""

    info: Info
    nodes: list[Node] = field(default_factory=list)
    links: list[list[Any]] = field(default_factory=list)
    _heights: dict[int, int] = field(default_factory=dict)

    def note(self, text: str, width: int = 710, height: int = 200) -> None:
        """An explanation above the first columns."""
        node = self._place("MarkdownNote", [], [], [text])
        node.data |= {"pos": [LEFT, TOP - GAP - height], "size": [width, height]}

    def add(self, kind: str, column: int, title: str = "", rows: int = 0, **values: Any) -> Node:
        """A node at the end of a column; values are wires or the widgets' settings.

        `rows` makes room for what the node shows: previews and long texts.
        """
        schema = self.info[kind]
        sockets, widgets, settings = _read_inputs(schema, values)
        outputs = [
            {"name": name, "type": type_, "links": []}
            for name, type_ in zip(schema["output_name"], schema["output"], strict=True)
        ]
        node = self._place(kind, sockets + widgets, outputs, settings)
        if title:
            node.data["title"] = title
        for name, value in values.items():
            if isinstance(value, Output):
                self._connect(value, node, name)
        height = TITLE + ROW * (max(len(outputs), len(sockets)) + len(widgets)) + rows
        node.data["pos"] = [LEFT + COLUMN * column, TOP + self._heights.get(column, 0)]
        node.data["size"] = [COLUMN - 70, height]
        self._heights[column] = self._heights.get(column, 0) + height + GAP
        return node

    def save(self, path: Path) -> None:
        """Write the workflow; existing files are replaced at once."""
        workflow = {
            "id": f"infinite-id-{path.stem}",
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": [node.data for node in self.nodes],
            "links": self.links,
            "groups": [],
            "config": {},
            "extra": {"ds": {"scale": 0.7, "offset": [40, 280]}},
            "version": 0.4,
        }
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(workflow, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    def _place(self, kind: str, inputs: list[Any], outputs: list[Any], values: list[Any]) -> Node:
        node = Node(
            {
                "id": len(self.nodes) + 1,
                "type": kind,
                "pos": [0, 0],
                "size": [0, 0],
                "flags": {},
                "order": len(self.nodes),
                "mode": 0,
                "inputs": inputs,
                "outputs": outputs,
                "properties": {"Node name for S&R": kind},
                "widgets_values": values,
            }
        )
        self.nodes.append(node)
        return node

    def _connect(self, source: Output, target: Node, name: str) -> None:
        names = [entry["name"] for entry in target.data["inputs"]]
        slot, number = names.index(name), len(self.links) + 1
        output = source.node.data["outputs"][source.slot]
        output["links"].append(number)
        target.data["inputs"][slot]["link"] = number
        ids = source.node.data["id"], source.slot, target.data["id"], slot
        self.links.append([number, *ids, output["type"]])


def _read_inputs(
    schema: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[list[Any], list[Any], list[Any]]:
    """The sockets, the widgets, and what the widgets say, in the page's order."""
    sockets: list[Any] = []
    widgets: list[Any] = []
    settings: list[Any] = []
    for kind, entries in schema["input"].items():
        if kind == "hidden":
            continue
        for name, (type_, *rest) in entries.items():
            options = rest[0] if rest else {}
            choice = isinstance(type_, list)
            if not choice and type_ not in WIDGETS:
                optional = {"shape": 7} if kind == "optional" else {}
                sockets.append({"name": name, "type": type_, **optional, "link": None})
                continue
            widgets.append(_widget(name, "COMBO" if choice else type_))
            choices = type_ if choice else options.get("options", [None])
            default = options.get("default", next(iter(choices), None))
            value = values.get(name, default)
            value = default if isinstance(value, Output) else value
            settings.append(value)
            if name in SEEDS and options.get("control_after_generate"):
                settings.append("fixed")
            if options.get("image_upload"):
                widgets.append(_widget("upload", "IMAGEUPLOAD"))
                settings.append("image")
    return sockets, widgets, settings


def _widget(name: str, type_: str) -> dict[str, Any]:
    return {"name": name, "type": type_, "widget": {"name": name}, "link": None}

"""Draws workflows: nodes in columns, groups around them, saved as the page saves a graph.

The server says which inputs and outputs a node has, so that a drawn file equals one that the page
writes. Nodes are named by their ids, outputs by the names on the page with `_` for spaces.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import tomllib

from ..dev.cache import ROOT
from ..dev.comfyui import DEFAULT as HOST_VERSION
from . import wires

Info = Mapping[str, Any]
Downloads = Mapping[str, Mapping[str, str]]  # a model's file name -> what the page offers

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SEEDS = {"seed", "noise_seed"}
NOTE = "MarkdownNote"
# Sizes of a node's title, sockets and widgets on the page, in pixels.
TITLE, SLOT, WIDGET, TEXT, EDGE, WIDTH = 30, 20, 24, 70, 16, 250
VIEW = 1840, 920
"""The size of the canvas between the bars of a page of 1920x1080."""
GROWING = "COMFY_AUTOGROW_V3"
# Distances in pixels. The gap between columns leaves room for the wires.
NODE_GAP, COLUMN_GAP, GROUP_GAP, PADDING, HEADING = 30, 54, 50, 25, 40


@dataclass(frozen=True)
class Output:
    """One output of a node on the canvas."""

    node: Node
    slot: int


@dataclass(eq=False)
class Node:
    """A node on the canvas, as the page stores it, and the columns that it covers."""

    data: dict[str, Any]
    column: int
    span: int
    width: int
    height: int

    def __getitem__(self, name: str) -> Output:
        names = [output["name"].replace(" ", "_") for output in self.data["outputs"]]
        return Output(self, names.index(name))

    @property
    def columns(self) -> range:
        return range(self.column, self.column + self.span)


@dataclass(eq=False)
class Group:
    """A titled frame around nodes; its columns are filled from the top."""

    graph: Graph
    title: str
    colour: str
    nodes: list[Node] = field(default_factory=list)

    def add(
        self,
        kind: str,
        column: int,
        /,  # values may be called column, too
        title: str = "",
        *,
        rows: int = 0,
        node_width: int = WIDTH,
        span: int = 1,
        colours: tuple[str, str] | None = None,
        **values: Any,
    ) -> Node:
        """Add a node at the end of one of the graph's columns; values are wires or settings.

        `rows` makes room for what the node shows: previews and long texts.
        """
        inputs = _Inputs(self.graph.info[kind], values)
        outputs = [
            {"name": name, "type": type_, "links": []}
            for name, type_ in zip(
                inputs.schema["output_name"], inputs.schema["output"], strict=True
            )
        ]
        height = inputs.height(len(outputs)) + rows
        data = self.graph.new(kind, inputs.sockets + inputs.widgets, outputs, inputs.settings)
        if title:  # without one the page shows the node's name in the user's language
            data["title"] = title
        if colours:
            data["color"], data["bgcolor"] = colours
        node = self._put(Node(data, column, span, node_width, height))
        for name, value in values.items():
            if isinstance(value, Output):
                self.graph.connect(value, node, name)
        return node

    def place(self, data: dict[str, Any], column: int, width: int) -> Node:
        """Add a node that is drawn already, such as a subgraph's, with its own height."""
        node = {**data, "id": len(self.graph.nodes) + 1, "order": len(self.graph.nodes)}
        self.graph.nodes.append(node)
        return self._put(Node(node, column, 1, width, node["size"][1]))

    def note(self, title: str, text: str, column: int, span: int, height: int) -> None:
        """Add an explanation in Markdown."""
        data = self.graph.new(NOTE, [], [], [text])
        data |= {"title": title, "color": "#432", "bgcolor": "#000"}
        self._put(Node(data, column, span, 0, height))

    def _put(self, node: Node) -> Node:
        self.nodes.append(node)
        return node

    @property
    def columns(self) -> range:
        covered = [column for node in self.nodes for column in node.columns]
        return range(min(covered), max(covered) + 1)

    def arrange(self, top: int, columns: Mapping[int, tuple[int, int]]) -> dict[str, Any]:
        """Give every node its place, and return the frame as the page stores it."""
        bottoms = dict.fromkeys(self.columns, top + HEADING)
        for node in self.nodes:
            (left, _), (_, right) = columns[node.columns[0]], columns[node.columns[-1]]
            upper = max(bottoms[column] for column in node.columns) + TITLE
            node.data["pos"] = [left, upper]
            node.data["size"] = [right - left, node.height]
            for column in node.columns:
                bottoms[column] = upper + node.height + NODE_GAP
        left, right = columns[self.columns[0]][0], columns[self.columns[-1]][1]
        bottom = max(bottoms.values()) - NODE_GAP + PADDING
        return {
            "id": self.graph.groups.index(self) + 1,
            "title": self.title,
            "bounding": [left - PADDING, top, right - left + 2 * PADDING, bottom - top],
            "color": self.colour,
            "font_size": 24,
            "flags": {},
        }


@dataclass
class Graph:
    """A workflow being drawn. A group lies below the earlier ones that share a column with it.

    Nodes get the numbers after `start`. The page renumbers a subgraph's nodes if they are taken.
    """

    info: Info
    downloads: Downloads
    groups: list[Group] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    links: list[list[Any]] = field(default_factory=list)
    start: int = 0

    def group(self, title: str, colour: str) -> Group:
        group = Group(self, title, colour)
        self.groups.append(group)
        return group

    def workflow(self, name: str) -> dict[str, Any]:
        """Return what the page would save. The first group is the heading, above all others."""
        workflow: dict[str, Any] = {
            "id": f"infinite-id-{name}",
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "groups": list(self._arrange()),
            "nodes": self.nodes,
            "links": self.links,
            "config": {},
            "extra": {},
            "version": 0.4,
        }
        boxes = [wires.box(node) for node in self.nodes]
        width = max(b.right for b in boxes) - min(b.left for b in boxes)
        height = max(b.bottom for b in boxes) - min(b.top for b in boxes) + HEADING
        scale = min(1, VIEW[0] / width, VIEW[1] / height)
        workflow["extra"]["ds"] = {"scale": round(scale, 3), "offset": [150, 130]}
        wires.lead(workflow)
        return workflow

    def new(self, kind: str, inputs: list[Any], outputs: list[Any], values: list[Any]) -> Any:
        node = {
            "id": self.start + len(self.nodes) + 1,
            "type": kind,
            "pos": [0, 0],
            "size": [0, 0],
            "flags": {},
            "order": len(self.nodes),
            "mode": 0,
            "inputs": inputs,
            "outputs": outputs,
            "properties": self._properties(kind, values),
            "widgets_values": values,
        }
        self.nodes.append(node)
        return node

    def connect(self, source: Output, target: Node, name: str) -> None:
        names = [entry["name"] for entry in target.data["inputs"]]
        slot, number = names.index(name), len(self.links) + 1
        output = source.node.data["outputs"][source.slot]
        output["links"].append(number)
        target.data["inputs"][slot]["link"] = number
        ids = source.node.data["id"], source.slot, target.data["id"], slot
        self.links.append([number, *ids, output["type"]])

    def _properties(self, kind: str, values: list[Any]) -> dict[str, Any]:
        """Return the node's pack, for managers that offer missing packs, and models to download."""
        if kind == NOTE:
            return {}
        ours = self.info[kind]["python_module"].startswith("custom_nodes.")
        pack = {"cnr_id": "infinite-id", "ver": pack_version()} if ours else CORE
        names = [value for value in values if isinstance(value, str) and value in self.downloads]
        models = [{"name": name, **self.downloads[name]} for name in names]
        return {**pack, "Node name for S&R": kind, **({"models": models} if models else {})}

    def _arrange(self) -> Iterator[dict[str, Any]]:
        columns = self._columns()
        bottoms = dict.fromkeys(columns, 0)
        for index, group in enumerate(self.groups):
            frame = group.arrange(max(bottoms[column] for column in group.columns), columns)
            bottom = frame["bounding"][1] + frame["bounding"][3] + GROUP_GAP
            bottoms |= dict.fromkeys(columns if index == 0 else group.columns, bottom)
            yield frame

    def _columns(self) -> dict[int, tuple[int, int]]:
        """Return each column's left and right edge, given by its widest node."""
        nodes = [node for group in self.groups for node in group.nodes]
        edges: dict[int, tuple[int, int]] = {}
        left = 0
        for column in range(max(node.columns[-1] for node in nodes) + 1):
            width = max(
                (node.width for node in nodes if list(node.columns) == [column]), default=WIDTH
            )
            edges[column] = (left, left + width)
            left += width + COLUMN_GAP
        return edges


CORE = {"cnr_id": "comfy-core", "ver": HOST_VERSION}


@cache
def pack_version() -> str:
    """Return the version of this checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def save(workflow: Mapping[str, Any], path: Path) -> None:
    """Write a workflow; an existing file is replaced at once."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(workflow, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


class _Inputs:
    """A node's sockets, its widgets, and what the widgets say, in the page's order."""

    def __init__(self, schema: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        self.schema = schema
        self.sockets: list[Any] = []
        self.widgets: list[Any] = []
        self.settings: list[Any] = []
        self._widget_height = 0
        for kind in ("required", "optional"):
            for name, (type_, *rest) in schema["input"].get(kind, {}).items():
                options = rest[0] if rest else {}
                if isinstance(type_, list):
                    self._widget(name, "COMBO", {"options": type_, **options}, values)
                elif type_ in WIDGETS:
                    self._widget(name, type_, options, values)
                elif type_ == GROWING:
                    self._growing(name, options["template"], values)
                else:
                    optional = {"shape": 7} if kind == "optional" else {}
                    self.sockets.append({"name": name, "type": type_, **optional, "link": None})

    def _growing(self, name: str, template: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Add a socket `name.slot` for each given wire, and one more, as the page does."""
        slots = [f"{name}.{slot}" for slot in template["names"]]
        ((type_, *_),) = template["input"]["required"].values()
        given = sum(slot in values for slot in slots)
        for slot in slots[: given + 1]:
            self.sockets.append({"name": slot, "type": type_, "shape": 7, "link": None})

    def height(self, outputs: int) -> int:
        """Return the height of the node on the page, without its preview."""
        return EDGE + SLOT * max(len(self.sockets), outputs) + self._widget_height

    def _widget(
        self, name: str, type_: str, options: Mapping[str, Any], values: Mapping[str, Any]
    ) -> None:
        default = options.get("default", next(iter(options.get("options", ())), None))
        value = values.get(name, default)
        self._add_widget(name, type_, default if isinstance(value, Output) else value)
        self._widget_height += TEXT if options.get("multiline") else WIDGET
        if name in SEEDS and options.get("control_after_generate"):
            self.settings.append("randomize")
            self._widget_height += WIDGET
        if options.get("image_upload"):
            self._add_widget("upload", "IMAGEUPLOAD", "image")
            self._widget_height += WIDGET

    def _add_widget(self, name: str, type_: str, value: Any) -> None:
        entry = {"name": name, "type": type_, "widget": {"name": name}, "link": None}
        self.widgets.append(entry)
        self.settings.append(value)

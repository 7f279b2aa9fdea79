"""Workflow files: UI JSON as the page saves it, and the API form that a server queues."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..dev.cache import ROOT

Workflow = dict[str, Any]
MUTED, BYPASSED = 2, 4
SUBGRAPH_INPUT, SUBGRAPH_OUTPUT = -10, -20
NOTES = {"MarkdownNote", "Note"}


def workflow_files() -> list[Path]:
    """Return the workflows that the pack ships."""
    return sorted((ROOT / "workflows").glob("*.json"))


def workflow_file(name: str) -> Path:
    return ROOT / "workflows" / f"{name}.json"


def read(path: Path, values: Mapping[str, Any]) -> Workflow:
    """Read a workflow, and set every widget that `values` names to its value.

    A name is a widget's, maybe with the node's and the file's name before it: `width`,
    `EmptyLatentImage.width`, `two_people.EmptyLatentImage.width`. The longest name wins.
    """
    workflow: Workflow = json.loads(path.read_text(encoding="utf-8"))
    for node in list_nodes(workflow):
        names = [entry["name"] for entry in node.get("inputs", ()) if "widget" in entry]
        for index, name in _positions(names, node.get("widgets_values", ())):
            value = node["widgets_values"][index]
            of_node = f"{node['type']}.{name}"
            for known in (name, of_node, f"{path.stem}.{of_node}"):
                value = values.get(known, value)
            node["widgets_values"][index] = value
    return workflow


def list_nodes(workflow: Workflow) -> list[dict[str, Any]]:
    """Return all nodes, including those inside subgraphs."""
    return [
        *workflow["nodes"],
        *(node for graph in _subgraphs(workflow).values() for node in graph["nodes"]),
    ]


def _subgraphs(workflow: Workflow) -> dict[str, Any]:
    return {graph["id"]: graph for graph in workflow.get("definitions", {}).get("subgraphs", ())}


def to_prompt(workflow: Workflow) -> dict[str, dict[str, Any]]:
    """Return a workflow in API form, as the page's Queue button would send it.

    Nodes in a subgraph are named by the subgraph's node and their own, as in `2:5`.
    """
    graphs = _subgraphs(workflow)
    sources: dict[int, Any] = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    inside = {n["id"]: graphs[n["type"]] for n in workflow["nodes"] if n["type"] in graphs}
    for number, source, slot, *_ in workflow["links"]:
        if source in inside:
            ends = [
                link for link in inside[source]["links"] if link["target_id"] == SUBGRAPH_OUTPUT
            ]
            (end,) = [link for link in ends if link["target_slot"] == slot]
            sources[number] = [f"{source}:{end['origin_id']}", end["origin_slot"]]
    prompt = {}
    for node in _list_running(workflow["nodes"]):
        if node["id"] not in inside:
            prompt[str(node["id"])] = _entry(node, sources)
            continue
        given = _inputs(node, sources)
        names = [entry["name"] for entry in node["inputs"]]
        graph = inside[node["id"]]
        inner = {
            link["id"]: given[names[link["origin_slot"]]]
            if link["origin_id"] == SUBGRAPH_INPUT
            else [f"{node['id']}:{link['origin_id']}", link["origin_slot"]]
            for link in graph["links"]
        }
        for part in _list_running(graph["nodes"]):
            prompt[f"{node['id']}:{part['id']}"] = _entry(part, inner)
    return prompt


def _list_running(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        node
        for node in nodes
        if node["type"] not in NOTES and node.get("mode", 0) not in (MUTED, BYPASSED)
    ]


def _entry(node: dict[str, Any], sources: Mapping[int, Any]) -> dict[str, Any]:
    return {"class_type": node["type"], "inputs": _inputs(node, sources)}


def _inputs(node: dict[str, Any], sources: Mapping[int, Any]) -> dict[str, Any]:
    values = node.get("widgets_values", ())
    widgets = [entry for entry in node.get("inputs", ()) if "widget" in entry]
    buttons = {entry["name"] for entry in widgets if entry["type"] == "IMAGEUPLOAD"}
    places = _positions([entry["name"] for entry in widgets], values)
    inputs = {name: values[index] for index, name in places if name not in buttons}
    for entry in node.get("inputs", ()):
        if entry.get("link") is not None:
            inputs[entry["name"]] = sources[entry["link"]]
    return inputs


def _positions(names: list[str], values: Any) -> Iterator[tuple[int, str]]:
    """Yield the position of each widget's value. After a seed the page adds a value of its own."""
    index = 0
    for name in names:
        yield index, name
        index += 1
        if name in ("seed", "noise_seed") and index < len(values):
            index += values[index] in ("fixed", "increment", "decrement", "randomize")

"""Workflow files: UI JSON as people save it, and the API form that a server queues."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .cache import ROOT

Workflow = dict[str, Any]
MUTED, BYPASSED = 2, 4
NOTES = {"MarkdownNote", "Note"}


def workflow_files() -> list[Path]:
    """The workflows that the pack ships."""
    return sorted((ROOT / "workflows").glob("*.json"))


def workflow_file(name: str) -> Path:
    return ROOT / "workflows" / f"{name}.json"


def read(path: Path, values: Mapping[str, Any]) -> Workflow:
    """Read a workflow, with every widget that `values` names set to its value.

    Names are a widget's, with or without its node's and the file's before it: `width`,
    `EmptyLatentImage.width`, `two_people.EmptyLatentImage.width`. The longer one counts.
    """
    workflow: Workflow = json.loads(path.read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        names = [entry["name"] for entry in node.get("inputs", ()) if "widget" in entry]
        for index, name in _positions(names, node.get("widgets_values", ())):
            value = node["widgets_values"][index]
            of_node = f"{node['type']}.{name}"
            for known in (name, of_node, f"{path.stem}.{of_node}"):
                value = values.get(known, value)
            node["widgets_values"][index] = value
    return workflow


def to_prompt(workflow: Workflow) -> dict[str, dict[str, Any]]:
    """A workflow in API form: what the page's Queue button would send."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    return {
        str(node["id"]): {"class_type": node["type"], "inputs": _inputs(node, sources)}
        for node in workflow["nodes"]
        if node["type"] not in NOTES and node.get("mode", 0) not in (MUTED, BYPASSED)
    }


def _inputs(node: dict[str, Any], sources: Mapping[int, list[Any]]) -> dict[str, Any]:
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
    """Where each widget's value stands: the page adds one behind a seed, for what it does next."""
    index = 0
    for name in names:
        yield index, name
        index += 1
        if name in ("seed", "noise_seed") and index < len(values):
            index += values[index] in ("fixed", "increment", "decrement", "randomize")

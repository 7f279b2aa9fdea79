"""The compatibility promise: workflows that users have saved keep working.

`nodes_snapshot.json` holds what such workflows rely on. The page's files name nodes by id, links by
input name and output position, and hold the widgets' values by position alone; API files leave
optional inputs out and so rely on their defaults.

What may be added: nodes, choices, optional inputs behind the others, outputs behind the others.
Record it with

    INFINITE_ID_SNAPSHOT=write python -m dev test tests/unit/test_compatibility.py

which refuses everything else. A change that must break (a renamed input, say) gets a **new node
id**, and the old one either stays, with `is_deprecated=True`, or is replaced by the host and then
deleted from the snapshot by hand:

    await ComfyAPI().node_replacement.register(io.NodeReplace(
        new_node_id=..., old_node_id=..., old_widget_ids=[...], input_mapping=[...],
    ))

in `InfiniteIDExtension.on_load`. Every supported host has this (tried on 0.16.3 and 0.30.0). It
acts only on ids that no loaded node has, so it cannot rename an input under its old id. The page
offers the replacement; for API files the host makes it by itself, and fails if one lacks an
`old_id` of the mapping: a node with optional inputs is better deprecated than replaced.
"""

import asyncio
import json
import os
from collections.abc import Callable
from copy import deepcopy
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest

SNAPSHOT = Path(__file__).with_name("nodes_snapshot.json")
COMMAND = "INFINITE_ID_SNAPSHOT=write python -m dev test tests/unit/test_compatibility.py"

Node = dict[str, Any]
"""`category`, and `inputs` and `outputs` by name, in the page's order: required ones first."""
Nodes = dict[str, Node]


def describe(node: Any) -> Node:
    info = node.GET_SCHEMA().get_v1_info(node)
    inputs = {
        name: _describe_input(*spec, optional=group == "optional")
        for group in ("required", "optional")
        for name, spec in info.input.get(group, {}).items()
    }
    outputs = {
        name: {"type": kind} for name, kind in zip(info.output_name, info.output, strict=True)
    }
    assert len(outputs) == len(info.output), f"{info.name}: two outputs have one name"
    return {"category": info.category, "inputs": inputs, "outputs": outputs}


def _describe_input(kind: str, options: dict[str, Any], *, optional: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "optional": optional}
    if "default" in options:  # the choices of a combo without one are files
        found |= {key: options[key] for key in ("default", "options") if key in options}
    if "template" in options:  # a growing input: the names of its sockets
        found["options"] = options["template"]["names"]
    return found


def breaks(before: Nodes, after: Nodes) -> list[str]:
    """What would break saved workflows, one line each."""
    found = [f"{node_id} is gone" for node_id in before if node_id not in after]
    for node_id in before.keys() & after.keys():
        for kind in ("inputs", "outputs"):
            lines = _breaks(before[node_id][kind], after[node_id][kind])
            found += [f"{node_id}, {kind}: {line}" for line in lines]
    return sorted(found)


def _breaks(before: Node, after: Node) -> list[str]:
    gone = [name for name in before if name not in after]
    found = [f"'{name}' is gone" for name in gone]
    if not gone and list(after)[: len(before)] != list(before):
        found.append(f"the order was {', '.join(before)}, and is {', '.join(after)}")
    for name in after.keys() - before.keys():
        if not after[name].get("optional", True):
            found.append(f"'{name}' is new and required")
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        for key in sorted(old.keys() | new.keys()):
            grown = key == "options" and set(old.get(key, ())) <= set(new.get(key, ()))
            if old.get(key) != new.get(key) and not grown:
                found.append(f"'{name}': {key} was {old.get(key)!r}, and is {new.get(key)!r}")
    return found


def as_text(nodes: Nodes) -> str:
    return json.dumps(nodes, indent=1, ensure_ascii=False) + "\n"


@pytest.fixture(scope="module")
def now() -> Nodes:
    pytest.importorskip("comfy_api", reason="needs a ComfyUI: set COMFYUI_PATH")
    from pack.nodes import InfiniteIDExtension

    async def classes() -> list[Any]:
        extension = InfiniteIDExtension()
        await extension.on_load()
        return await extension.get_node_list()

    found = {node.GET_SCHEMA().node_id: describe(node) for node in asyncio.run(classes())}
    return json.loads(as_text(dict(sorted(found.items()))))


@pytest.fixture(scope="module")
def recorded() -> Nodes:
    return json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_saved_workflows_keep_working(now: Nodes, recorded: Nodes) -> None:
    found = breaks(recorded, now)
    assert not found, "\n".join(
        [
            "Saved workflows would break:",
            *found,
            "Take it back, or give the changed node a new id and keep or replace the old one: "
            "the head of this file says how.",
        ]
    )


def test_the_snapshot_is_complete(now: Nodes, recorded: Nodes) -> None:
    if os.environ.get("INFINITE_ID_SNAPSHOT") == "write" and not breaks(recorded, now):
        SNAPSHOT.write_text(as_text(now), encoding="utf-8")
        return
    before, after = (as_text(nodes).splitlines() for nodes in (recorded, now))
    changes = list(unified_diff(before, after, "recorded", "now", n=2, lineterm=""))
    assert not changes, "\n".join([*changes, f"If this is meant, and nothing breaks: {COMMAND}"])


def _rename_input(nodes: Nodes) -> None:
    inputs = nodes["InfiniteIDApply"]["inputs"]
    nodes["InfiniteIDApply"]["inputs"] = {
        "strength" if name == "weight" else name: spec for name, spec in inputs.items()
    }


def _put_in_front(nodes: Nodes) -> None:
    node = nodes["InfiniteIDApply"]
    node["inputs"] = {"first": {"type": "INT", "optional": True}} | node["inputs"]


def _require_more(nodes: Nodes) -> None:
    nodes["InfiniteIDPasteFaces"]["inputs"]["more"] = {"type": "INT", "optional": False}


def _swap_outputs(nodes: Nodes) -> None:
    node = nodes["InfiniteIDFaceMasks"]
    node["outputs"] = dict(reversed(node["outputs"].items()))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda nodes: nodes.pop("InfiniteIDMix"), "InfiniteIDMix is gone"),
        (_rename_input, "InfiniteIDApply, inputs: 'weight' is gone"),
        (_put_in_front, "InfiniteIDApply, inputs: the order was model, identity,"),
        (_require_more, "InfiniteIDPasteFaces, inputs: 'more' is new and required"),
        (_swap_outputs, "InfiniteIDFaceMasks, outputs: the order was masks, count, annotated"),
        (
            lambda nodes: nodes["InfiniteIDApply"]["inputs"]["weight"].update(default=0.5),
            "InfiniteIDApply, inputs: 'weight': default was 1.0, and is 0.5",
        ),
        (
            lambda nodes: nodes["InfiniteIDApply"]["inputs"]["style"]["options"].pop(),
            "InfiniteIDApply, inputs: 'style': options was ['photo',",
        ),
        (
            lambda nodes: nodes["InfiniteIDMix"]["outputs"]["identity"].update(type="LATENT"),
            "InfiniteIDMix, outputs: 'identity': type was 'INFINITE_ID_IDENTITY', and is 'LATENT'",
        ),
    ],
    ids=["node", "name", "order", "required", "outputs", "default", "choice", "type"],
)
def test_what_breaks_is_named(
    recorded: Nodes, change: Callable[[Nodes], object], expected: str
) -> None:
    changed = deepcopy(recorded)
    change(changed)
    assert any(line.startswith(expected) for line in breaks(recorded, changed))


def test_additions_break_nothing(recorded: Nodes) -> None:
    more = deepcopy(recorded)
    more["InfiniteIDNew"] = {"category": "Infinite-ID", "inputs": {}, "outputs": {}}
    apply = more["InfiniteIDApply"]
    apply["category"] = "Infinite-ID/more"
    apply["inputs"]["last"] = {"type": "INT", "optional": True, "default": 0}
    apply["inputs"]["style"]["options"].append("style (another)")
    apply["outputs"]["info"] = {"type": "STRING"}
    assert breaks(recorded, more) == []

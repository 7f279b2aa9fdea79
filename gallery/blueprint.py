"""The starter: a subgraph that turns a photo into a picture of that person, as one node.

ComfyUI offers files in `subgraphs/` in its node search and library. Hosts without
`/global_subgraphs` do not list them: there the template holds the same subgraph. Frontend
1.47 finds a pack's subgraph only by its name, as the host does not send its search words. Until
that changes, Infinite-ID Unified Loader has the same search words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from ..infinite_id.presets import SEARCH_WORDS
from .downloads import BASE, DOWNLOADS
from .graphs import Graph, Info, Node, Output, pack_version
from .scene import (
    BLUE,
    GREY,
    NOTE_HEIGHT,
    OLIVE,
    PREVIEW,
    PURPLE,
    YELLOW,
    Scene,
    name_checkpoint,
    write_models,
)

NAME = "Photo to Person (Infinite-ID)"
DESCRIPTION = (
    "One photo of a face and a prompt: a new picture of that person, and how much it looks like "
    "the photo (cosine of the face model; above 0.5 is mostly the same person)."
)
PROMPT = "a photo of a woman, smiling, wearing a blue sweater, in the forest"
FIRST = 100  # nodes of a workflow around it have lower numbers
INPUT, OUTPUT = -10, -20
"""The numbers that the page gives to a subgraph's ends."""


@dataclass(frozen=True)
class Port:
    """An input or output of the subgraph: its name, and the slots inside."""

    name: str
    slots: tuple[tuple[Node, str], ...]


@dataclass
class Blueprint:
    """A subgraph as a file: alone for the search, or inside a workflow."""

    info: Info

    def file(self) -> dict[str, Any]:
        """Return the file for `subgraphs/`: the node alone, and its search words."""
        definition, node = self._draw()
        return {
            "revision": 0,
            "last_node_id": 1,
            "last_link_id": 0,
            "nodes": [{**node, "id": 1, "pos": [0, 0]}],
            "links": [],
            "version": 0.4,
            "definitions": {"subgraphs": [definition]},
            "extra": {
                "BlueprintDescription": DESCRIPTION,
                "BlueprintSearchAliases": list(SEARCH_WORDS),
            },
        }

    def workflow(self, name: str) -> dict[str, Any]:
        """Return a workflow: a photo, the subgraph's node, and the picture."""
        definition, node = self._draw()
        graph = Graph(self.info, DOWNLOADS)
        about = graph.group("About this workflow", GREY)
        text = f"## A photo, a prompt, a picture\n\n{DESCRIPTION}\n\nOpen the node to see inside."
        about.note("What it does", text, 0, 2, NOTE_HEIGHT)
        about.note(
            "Models it needs",
            write_models([name_checkpoint(BASE, "any SDXL checkpoint")]),
            2,
            1,
            NOTE_HEIGHT,
        )
        group = graph.group("Photo to person", PURPLE)
        photo = group.add("LoadImage", 0, rows=PREVIEW, image="face.jpg")
        inner = group.place(node, 1, 400)
        graph.connect(photo["IMAGE"], inner, "image")
        group.add(
            "SaveImage",
            2,
            rows=360,
            node_width=400,
            images=inner["picture"],
            filename_prefix=f"Infinite-ID/{name}",
        )
        group.add("PreviewAny", 2, "Likeness", node_width=400, rows=120, source=inner["likeness"])
        return {**graph.workflow(name), "definitions": {"subgraphs": [definition]}}

    def _draw(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw the subgraph's definition, and the node that stands for it."""
        graph = Graph(self.info, DOWNLOADS, start=FIRST)
        models = graph.group("Models", BLUE)
        checkpoint = models.add("CheckpointLoaderSimple", 0, ckpt_name=BASE)
        loader = models.add("InfiniteIDUnifiedLoader", 0, model=checkpoint["MODEL"])
        scene = Scene(graph, models, 0)
        scene.checkpoint, scene.clip, scene.model = checkpoint, checkpoint["CLIP"], loader["model"]
        person = graph.group("Person", YELLOW)
        encode = person.add("InfiniteIDEncode", 1, rows=PREVIEW, encoder=loader["encoder"])
        prompts = scene.prompts(PROMPT, 2, group=graph.group("Prompt", OLIVE))
        picture = graph.group("Picture", PURPLE)
        model = scene.apply(picture, 2, encode["identity"])
        image = scene.sample(picture, 3, model, prompts, scene.empty(picture, 2))
        likeness = picture.add(
            "InfiniteIDFaceSimilarity", 4, face_analysis=loader["face_analysis"], images=image
        )
        nodes = {node.data["type"]: node for group in graph.groups for node in group.nodes}
        prompt, _ = (n for n in graph.groups[2].nodes)
        apply, sampler = nodes["InfiniteIDApply"], nodes["KSampler"]
        inputs = [
            Port("image", ((encode, "image"), (likeness, "reference"))),
            Port("prompt", ((prompt, "text"),)),
            Port("style", ((apply, "style"),)),
            Port("weight", ((apply, "weight"),)),
            Port("preset", ((loader, "preset"),)),
            Port("ckpt_name", ((checkpoint, "ckpt_name"),)),
        ]
        outputs = {"picture": image, "likeness": likeness["mean_similarity"]}
        return _define(graph.workflow("starter"), inputs, outputs, sampler)


def _define(
    drawn: dict[str, Any], inputs: list[Port], outputs: dict[str, Output], sampler: Node
) -> tuple[dict[str, Any], dict[str, Any]]:
    ids = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(ids, link, strict=True)) for link in drawn["links"]]
    ins, outs, shown, values = [], [], [], []
    for slot, port in enumerate(inputs):
        numbers = []
        for node, name in port.slots:
            target = [entry["name"] for entry in node.data["inputs"]].index(name)
            entry = node.data["inputs"][target]
            entry["link"] = len(links) + 1
            ends = (len(links) + 1, INPUT, slot, node.data["id"], target, entry["type"])
            links.append(dict(zip(ids, ends, strict=True)))
            numbers.append(entry["link"])
        widget = {"widget": {"name": port.name}} if "widget" in entry else {}
        shown.append({"name": port.name, "type": entry["type"], **widget, "link": None})
        ins.append({**_describe(port.name, entry["type"], slot, -260), "linkIds": numbers})
        if widget:
            names = [e["name"] for e in node.data["inputs"] if "widget" in e]
            values.append(node.data["widgets_values"][names.index(name)])
    for slot, (name, output) in enumerate(outputs.items()):
        source = output.node.data["outputs"][output.slot]
        source["links"].append(len(links) + 1)
        ends = (len(links) + 1, output.node.data["id"], output.slot, OUTPUT, slot, source["type"])
        links.append(dict(zip(ids, ends, strict=True)))
        outs.append({**_describe(name, source["type"], slot, 2900), "linkIds": [len(links)]})
    for extension in drawn["extra"].get("linkExtensions", ()):
        links[extension["id"] - 1]["parentId"] = extension["parentId"]
    number = str(uuid5(NAMESPACE_URL, NAME))
    definition = {
        "id": number,
        "version": 1,
        "state": {
            "lastGroupId": len(drawn["groups"]),
            "lastNodeId": FIRST + len(drawn["nodes"]),
            "lastLinkId": len(links),
            "lastRerouteId": len(drawn["extra"].get("reroutes", ())),
        },
        "revision": 0,
        "config": {},
        "name": NAME,
        "inputNode": {"id": INPUT, "bounding": [-260, 0, 120, 40 + 20 * len(ins)]},
        "outputNode": {"id": OUTPUT, "bounding": [2900, 0, 120, 40 + 20 * len(outs)]},
        "inputs": ins,
        "outputs": outs,
        "widgets": [],
        "nodes": drawn["nodes"],
        "groups": drawn["groups"],
        "links": links,
        "reroutes": drawn["extra"].get("reroutes", []),
        "extra": {},
        "category": "Infinite-ID",
        "description": DESCRIPTION,
    }
    promoted = [["-1", entry["name"]] for entry in shown if "widget" in entry]
    of_sampler = str(sampler.data["id"])
    stand_in = {
        "type": number,
        "title": NAME,
        "pos": [0, 0],
        "size": [400, 300],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": shown,
        "outputs": [{"name": o["name"], "type": o["type"], "links": []} for o in outs],
        "properties": {
            "cnr_id": "infinite-id",
            "ver": pack_version(),
            "Node name for S&R": number,
            "proxyWidgets": [
                *promoted,
                [of_sampler, "seed"],
                [of_sampler, "control_after_generate"],
            ],
        },
        "widgets_values": [*values, None, None],
    }
    return definition, stand_in


def _describe(name: str, type_: str, slot: int, x: int) -> dict[str, Any]:
    number = str(uuid5(NAMESPACE_URL, f"{NAME}/{name}"))
    return {"id": number, "name": name, "type": type_, "pos": [x + 100, 20 + 20 * slot]}

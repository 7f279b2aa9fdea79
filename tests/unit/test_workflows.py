"""The workflow files as they lie in the folder: complete, tidy, and clear about what they need."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import dist
from pathlib import Path
from typing import Any

import pytest
from pack.dev.serve import fit_templates
from pack.gallery import TEMPLATES
from pack.gallery.downloads import DOWNLOADS, NEEDED
from pack.gallery.miniature import gallery_models, input_pictures
from pack.gallery.thumbnails import MOST_BYTES, SIDE
from pack.gallery.workflow import NOTES, list_nodes, read, to_prompt, workflow_files
from pack.infinite_id.presets import CLIP_MODELS, FACE_PACKS, PLUS_V2, PRESETS
from PIL import Image

TITLE = 30  # the page draws a node's title above its position
LOADERS = {
    "CheckpointLoaderSimple": "checkpoints",
    "CLIPVisionLoader": "clip_vision",
    "ControlNetLoader": "controlnet",
    "InfiniteIDLoadModel": "ipadapter",
    "LoraLoader": "loras",
}


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Box") -> bool:
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.bottom <= other.top or other.bottom <= self.top)

    def holds(self, other: "Box") -> bool:
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


def node_box(node: dict[str, Any]) -> Box:
    (left, top), (width, height) = node["pos"], node["size"]
    return Box(left, top - TITLE, left + width, top + height)


def group_box(group: dict[str, Any]) -> Box:
    left, top, width, height = group["bounding"]
    return Box(left, top, left + width, top + height)


@pytest.fixture(params=workflow_files(), ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def workflow(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_folder_holds_what_the_gallery_draws() -> None:
    names = {make.__name__ for make in TEMPLATES}
    assert {path.stem for path in workflow_files()} == names
    assert {path.stem for path in workflow_files()[0].parent.glob("*.jpg")} == names


def test_thumbnail_suits_the_template_browser(path: Path) -> None:
    thumbnail = path.with_suffix(".jpg")
    with Image.open(thumbnail) as picture:
        assert (picture.format, max(picture.size)) == ("JPEG", SIDE)
        assert max(high - low for low, high in picture.convert("RGB").getextrema()) > 100, "blank"
    assert thumbnail.stat().st_size <= MOST_BYTES


def test_nothing_overlaps(workflow: dict[str, Any]) -> None:
    nodes = [(node["type"], node_box(node)) for node in workflow["nodes"]]
    groups = [(group["title"], group_box(group)) for group in workflow["groups"]]
    for boxes in (nodes, groups):
        for (name, box), (other_name, other) in combinations(boxes, 2):
            assert not box.overlaps(other), (name, other_name)


def test_every_node_lies_in_one_group(workflow: dict[str, Any]) -> None:
    groups = [group_box(group) for group in workflow["groups"]]
    for node in workflow["nodes"]:
        assert sum(group.holds(node_box(node)) for group in groups) == 1, node["type"]


def led_around(workflow: dict[str, Any]) -> dict[int, list[tuple[float, float]]]:
    """The points that wires are led by, in order, by the wires' numbers."""
    found: dict[int, list[tuple[float, float]]] = {}
    for point in workflow["extra"].get("reroutes", []):
        (link,) = point["linkIds"]
        found.setdefault(link, []).append(tuple(point["pos"]))
    return found


def test_links_go_from_left_to_right(workflow: dict[str, Any]) -> None:
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert workflow["links"]
    for number, source, _, target, *_ in workflow["links"]:
        if number in led_around(workflow):
            continue
        kinds = nodes[source]["type"], nodes[target]["type"]
        assert node_box(nodes[source]).right < node_box(nodes[target]).left, kinds


def test_no_wire_runs_behind_a_node(workflow: dict[str, Any]) -> None:
    """The page's curves, and straight lines between the points that wires are led by."""
    boxes = [(node["type"], node_box(node)) for node in workflow["nodes"]]
    for link in workflow["links"]:
        for kind, box in boxes:
            inside = [p for p in trace(workflow, link) if is_inside(box, p)]
            assert inside == [], (kind, link)


def is_inside(box: Box, point: tuple[float, float]) -> bool:
    return box.left < point[0] < box.right and box.top < point[1] < box.bottom


def trace(workflow: dict[str, Any], link: list[Any]) -> list[tuple[float, float]]:
    """Points of a wire. A slot is 20 pixels high; a curve reaches out by a quarter of its span."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    number, source, output, target, slot, _ = link
    (x, y), (width, _) = nodes[source]["pos"], nodes[source]["size"]
    start, end = (x + width, y + 20 * output + 14), nodes[target]["pos"]
    end = (end[0], end[1] + 20 * slot + 14)
    corners = led_around(workflow).get(number)
    steps = [step / 100 for step in range(1, 100)]
    if corners:
        return [
            (ax + (bx - ax) * t, ay + (by - ay) * t)
            for (ax, ay), (bx, by) in pairwise([start, *corners, end])
            for t in steps
        ]
    reach = dist(start, end) / 4
    xs, ys = (
        (start[0], start[0] + reach, end[0] - reach, end[0]),
        (start[1], start[1], *end[1:] * 2),
    )
    return [(bezier(xs, t), bezier(ys, t)) for t in steps]


def bezier(ends: Sequence[float], t: float) -> float:
    if len(ends) == 1:
        return ends[0]
    return (1 - t) * bezier(ends[:-1], t) + t * bezier(ends[1:], t)


def test_points_are_chained_as_the_page_reads_them(workflow: dict[str, Any]) -> None:
    points = {point["id"]: point for point in workflow["extra"].get("reroutes", [])}
    found = {e["id"]: e["parentId"] for e in workflow["extra"].get("linkExtensions", [])}
    assert found.keys() == led_around(workflow).keys()
    for link, last in found.items():
        chain = [last]
        while "parentId" in points[chain[-1]]:
            chain.append(points[chain[-1]]["parentId"])
        assert [tuple(points[p]["pos"]) for p in reversed(chain)] == led_around(workflow)[link]


def test_text_is_readable_on_a_usual_screen(workflow: dict[str, Any]) -> None:
    """The page leaves texts out below 8 pixels, and titles and widgets are 14 high.

    A workflow that is opened by the template browser takes three quarters of the page.
    """
    boxes = [node_box(node) for node in workflow["nodes"]]
    frames = [group["bounding"] for group in workflow["groups"]]
    left = min([box.left for box in boxes] + [x for x, _, _, _ in frames])
    right = max([box.right for box in boxes] + [x + width for x, _, width, _ in frames])
    top = min([box.top for box in boxes] + [y for _, y, _, _ in frames])
    bottom = max([box.bottom for box in boxes] + [y + height for _, y, _, height in frames])
    assert 0.75 * min(1920 / (right - left), 1080 / (bottom - top)) > 8 / 14


def test_no_socket_is_dead(workflow: dict[str, Any]) -> None:
    """Types that only the server knows are no sockets; what must be connected is."""
    for node in workflow["nodes"]:
        for entry in node.get("inputs", ()):
            assert not entry["type"].startswith("COMFY_"), (node["type"], entry["name"])
            needed = "widget" not in entry and entry.get("shape") != 7
            assert not needed or entry["link"] is not None, (node["type"], entry["name"])


def test_first_pictures_follow_the_recipe(workflow: dict[str, Any]) -> None:
    """FaceID PlusV2 with its LoRA at 0.6 and a weight of 0.8 to 1; another seed each time."""
    draws = False
    for node in list_nodes(workflow):
        values = node.get("widgets_values")
        if node["type"] == "InfiniteIDUnifiedLoader":
            assert values[:2] == ["IP-Adapter FaceID PlusV2", 0.6]
        if node["type"] == "InfiniteIDFaceLoRA":
            assert values == [0.6]
        if node["type"] == "InfiniteIDApply":
            draws = True
            assert 0.8 <= values[0] <= 1
        if node["type"] == "KSampler":
            assert values[1] == "randomize"
    kinds = {node["type"] for node in list_nodes(workflow)}
    assert not draws or kinds & {"InfiniteIDUnifiedLoader", "InfiniteIDFaceLoRA"}


def test_notes_say_what_it_does_and_what_it_needs(workflow: dict[str, Any]) -> None:
    notes = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] in NOTES]
    what, models = notes
    assert what.startswith("## ")
    for name in model_names(workflow):
        assert name in models


def test_nodes_say_whose_they_are(workflow: dict[str, Any]) -> None:
    subgraphs = {g["id"] for g in workflow.get("definitions", {}).get("subgraphs", ())}
    for node in list_nodes(workflow):
        if node["type"] in NOTES:
            continue
        properties = node["properties"]
        ours = node["type"].startswith("InfiniteID") or node["type"] in subgraphs
        assert properties["cnr_id"] == ("infinite-id" if ours else "comfy-core")
        assert properties["ver"].count(".") == 2
        assert properties["Node name for S&R"] == node["type"]


def test_loaders_offer_their_models(workflow: dict[str, Any]) -> None:
    for node in list_nodes(workflow):
        offered = node["properties"].get("models", [])
        if node["type"] not in LOADERS:
            assert offered == []
            continue
        (model,) = offered
        assert model["name"] == node["widgets_values"][0]
        assert model["directory"] == LOADERS[node["type"]]
        assert model["url"] == DOWNLOADS[model["name"]]["url"]


def test_templates_are_fitted_to_the_miniature(path: Path, tmp_path: Path) -> None:
    """As `python -m dev serve` gives them: what they load is there, and they are small."""
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    small = gallery_models()
    fit_templates(tmp_path, small.values)
    there = {file.name for files in small.models.values() for file in files}
    assert {*model_names(json.loads(copy.read_text(encoding="utf-8")))} <= there
    prompt = to_prompt(read(copy, {}))
    latents = [n["inputs"] for n in prompt.values() if n["class_type"] == "EmptyLatentImage"]
    assert all(latent["width"] * latent["height"] <= 2 * 128**2 for latent in latents)


def model_names(workflow: dict[str, Any]) -> Iterator[str]:
    for node in list_nodes(workflow):
        if node["type"] in LOADERS:
            yield node["widgets_values"][0]


def test_the_note_on_models_says_what_the_loader_says() -> None:
    preset = PRESETS[PLUS_V2]
    pack, clip = FACE_PACKS[preset.face_model].download, CLIP_MODELS[preset.clip_model]
    assert list(NEEDED) == [
        f"[{file.name}]({file.url}) ({file.amount}) in `models/{file.folder}`"
        for file in (preset.adapter, pack, clip)
        if file
    ]


def test_the_starter_is_found_by_what_people_search() -> None:
    """The blueprint is the template's node, and says by which words the search finds it."""
    root = workflow_files()[0].parents[1]
    (path,) = (root / "subgraphs").glob("*.json")
    blueprint = json.loads(path.read_text(encoding="utf-8"))
    assert path.stem == blueprint["nodes"][0]["title"] == "Photo to Person (Infinite-ID)"
    words = [
        "face",
        "portrait",
        "identity",
        "ipadapter",
        "instantid",
        "faceid",
        "pulid",
        "character",
    ]
    found = blueprint["extra"]["BlueprintSearchAliases"]
    assert {*words, "face swap", "photo to person"} == set(found)
    (definition,) = blueprint["definitions"]["subgraphs"]
    assert blueprint["nodes"][0]["type"] == definition["id"]
    template = json.loads((root / "workflows" / "photo_to_person.json").read_text("utf-8"))
    assert template["definitions"] == blueprint["definitions"]


def test_nodes_of_a_subgraph_are_queued_with_their_wires() -> None:
    """What the page makes of the starter: nodes named by both numbers, wires led through."""
    path = workflow_files()[0].with_name("photo_to_person.json")
    prompt = to_prompt(read(path, {"prompt": "a test"}))
    kinds = {entry["class_type"]: number for number, entry in prompt.items()}
    encode, saved = prompt[kinds["InfiniteIDEncode"]], prompt[kinds["SaveImage"]]
    assert encode["inputs"]["image"] == [kinds["LoadImage"], 0]
    assert encode["inputs"]["encoder"] == [kinds["InfiniteIDUnifiedLoader"], 1]
    assert ":" in kinds["InfiniteIDEncode"]
    assert saved["inputs"]["images"] == [kinds["VAEDecode"], 0]
    texts = [e["inputs"]["text"] for e in prompt.values() if e["class_type"] == "CLIPTextEncode"]
    assert texts[0] == "a test"


def test_every_photo_is_shipped(workflow: dict[str, Any]) -> None:
    shipped = {picture.name for picture in input_pictures()}
    for node in workflow["nodes"]:
        if node["type"] == "LoadImage":
            assert node["widgets_values"][0] in shipped

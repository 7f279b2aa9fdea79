"""The workflow files as they lie in the folder: complete, tidy, and clear about what they need."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from pack.dev.gallery import TEMPLATES
from pack.dev.gallery.downloads import DOWNLOADS
from pack.dev.gallery.thumbnails import MOST_BYTES, SIDE
from pack.dev.miniature import gallery_models, input_pictures
from pack.dev.serve import fit_templates
from pack.dev.workflow import NOTES, read, to_prompt, workflow_files
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


def test_links_go_from_left_to_right(workflow: dict[str, Any]) -> None:
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert workflow["links"]
    for _, source, _, target, *_ in workflow["links"]:
        kinds = nodes[source]["type"], nodes[target]["type"]
        assert node_box(nodes[source]).right < node_box(nodes[target]).left, kinds


def test_notes_say_what_it_does_and_what_it_needs(workflow: dict[str, Any]) -> None:
    notes = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] in NOTES]
    what, models = notes
    assert what.startswith("## ")
    for name in model_names(workflow):
        assert name in models


def test_nodes_say_whose_they_are(workflow: dict[str, Any]) -> None:
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        properties = node["properties"]
        ours = node["type"].startswith("InfiniteID")
        assert properties["cnr_id"] == ("infinite-id" if ours else "comfy-core")
        assert properties["ver"].count(".") == 2
        assert properties["Node name for S&R"] == node["type"]


def test_loaders_offer_their_models(workflow: dict[str, Any]) -> None:
    for node in workflow["nodes"]:
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
    for node in workflow["nodes"]:
        if node["type"] in LOADERS:
            yield node["widgets_values"][0]


def test_every_photo_is_shipped(workflow: dict[str, Any]) -> None:
    shipped = {picture.name for picture in input_pictures()}
    for node in workflow["nodes"]:
        if node["type"] == "LoadImage":
            assert node["widgets_values"][0] in shipped

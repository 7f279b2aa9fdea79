"""The real web page in a headless Chromium, over a real server."""

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from pack.dev.browser import open_page
from pack.dev.server import PACK
from pack.dev.server_api import Server
from pack.gallery.downloads import ADAPTER, BASE, CLIP_VISION
from pack.gallery.miniature import gallery_models, running_gallery
from pack.gallery.workflow import Workflow, read, to_prompt, workflow_file, workflow_files
from PIL import Image
from playwright.sync_api import Page, Response

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "ci-artifacts"
READY = "window.app?.graph && window.app.extensionManager && document.querySelector('canvas')"
BAD_NODES = """() => {
    const nodes = window.app.graph.nodes
    const unknown = n => n.constructor.nodeData === undefined && n.type !== 'MarkdownNote'
    return nodes.filter(n => n.has_errors || unknown(n)).map(n => n.type)
}"""
# Left, top, right, bottom of every node, as large as the page makes it; the title is above.
BOXES = """() => window.app.graph.nodes.map(n => {
    const [[left, top], [width, height]] = [n.pos, n.size]
    return [n.type, left, top - LiteGraph.NODE_TITLE_HEIGHT, left + width, top + height]
})"""
DROP = """text => {
    const data = new DataTransfer()
    data.items.add(new File([text], 'photo.json', {type: 'application/json'}))
    const drop = new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})
    document.querySelector('canvas').dispatchEvent(drop)
}"""
SELECT = """type => {
    window.app.canvas.selectNode(window.app.graph.nodes.find(n => n.type === type))
}"""
ALONE = """type => {
    window.app.graph.clear()
    window.app.graph.add(LiteGraph.createNode(type))
}"""
SHOWN = "() => document.querySelector('textarea[readonly]')?.value ?? ''"
LOADED = "count => window.app.graph.nodes.length === count"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    small = gallery_models()
    with running_gallery(small) as server:
        server.queue(to_prompt(read(workflow_file("save_identity"), small.values)))
        blank = server.base / "noface.png"
        Image.new("RGB", (64, 64)).save(blank)
        server.upload(blank)
        yield server


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Page]:
    ARTIFACTS.mkdir(exist_ok=True)
    with open_page(server.url) as page:
        page.set_viewport_size({"width": 1920, "height": 1080})
        page.wait_for_function(READY, timeout=120_000)
        yield page


@pytest.mark.parametrize("path", workflow_files(), ids=lambda path: path.stem)
def test_workflow_opens_and_converts(path: Path, page: Page) -> None:
    """No missing node, no red input, and what the page would queue is what we queue."""
    workflow = read(path, gallery_models().values)
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    page.wait_for_timeout(1500)
    page.screenshot(path=ARTIFACTS / f"{path.stem}-opened.png")
    assert page.evaluate("() => window.app.canvas.ds.scale") > 8 / 14, "texts are left out"
    fit_view(page)
    assert page.evaluate(BAD_NODES) == []
    assert page.locator(".p-dialog").count() == 0, "the page complains in a dialog"
    assert overlapping(page.evaluate(BOXES)) == []
    prompt = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    converted = {
        node: {"class_type": entry["class_type"], "inputs": entry["inputs"]}
        for node, entry in prompt.items()
    }
    assert converted == to_prompt(workflow)


def open_workflow(page: Page, workflow: Workflow) -> None:
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    page.wait_for_timeout(1500)
    fit_view(page)


def fit_view(page: Page) -> None:
    page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(1000)


def overlapping(boxes: list[Any]) -> list[tuple[str, str]]:
    """The pairs of nodes that cover one another on the canvas."""
    return [
        (kind, other_kind)
        for (kind, *box), (other_kind, *other) in combinations(boxes, 2)
        if box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
    ]


def test_template_browser_shows_and_opens_ours(page: Page) -> None:
    """All thumbnails; a click opens one, and the page offers the models that are not there."""
    thumbnails: set[str] = set()

    def note(response: Response) -> None:
        if "/workflow_templates/" in response.url and response.ok:
            thumbnails.add(response.url.split("/")[-1])

    page.on("response", note)
    page.evaluate("() => { window.app.extensionManager.command.execute('Comfy.BrowseTemplates') }")
    # The dialog comes last in the page; a tab or a badge may have the same name.
    page.get_by_text(PACK, exact=True).last.click()
    page.get_by_text("photo", exact=True).last.hover()
    page.wait_for_timeout(1000)
    page.screenshot(path=ARTIFACTS / "templates.png")
    for _ in range(5):  # cards are made as one scrolls
        page.mouse.wheel(0, 1000)
        page.wait_for_timeout(300)
    page.remove_listener("response", note)
    assert thumbnails == {path.with_suffix(".jpg").name for path in workflow_files()}
    page.get_by_text("separate_models", exact=True).last.click()
    workflow = json.loads(workflow_file("separate_models").read_text(encoding="utf-8"))
    page.wait_for_function(LOADED, arg=len(workflow["nodes"]))
    page.get_by_text("View details").first.click()
    for name in (BASE, ADAPTER, CLIP_VISION):
        page.get_by_text(name).first.wait_for()
    page.screenshot(path=ARTIFACTS / "missing-models.png")


def test_dropped_file_opens(page: Page) -> None:
    workflow = read(workflow_file("photo"), gallery_models().values)
    page.evaluate("() => window.app.graph.clear()")
    page.evaluate(DROP, json.dumps(workflow))
    page.wait_for_function(LOADED, arg=len(workflow["nodes"]))
    assert page.evaluate(BAD_NODES) == []


def test_help_page_shows_beside_its_node(page: Page) -> None:
    open_workflow(page, read(workflow_file("photo"), gallery_models().values))
    page.evaluate(SELECT, "InfiniteIDApply")
    page.get_by_test_id("info-button").click()
    text = (ROOT / "nodes/help/docs/InfiniteIDApply.md").read_text(encoding="utf-8")
    page.get_by_text(text.splitlines()[2]).first.wait_for()
    page.wait_for_timeout(500)
    page.screenshot(path=ARTIFACTS / "help.png")


def test_queue_ends_with_a_picture_on_the_canvas(page: Page) -> None:
    open_workflow(page, read(workflow_file("photo"), gallery_models().values))
    page.evaluate("async () => await window.app.queuePrompt(0)")
    page.wait_for_function(
        "() => window.app.graph.nodes.some(n => n.type === 'SaveImage' && n.imgs?.length)",
        timeout=300_000,
    )
    page.wait_for_timeout(500)
    page.screenshot(path=ARTIFACTS / "photo-ran.png")
    assert overlapping(page.evaluate(BOXES)) == [], "previews made nodes larger"


def test_diagnose_shows_its_report(page: Page) -> None:
    """On the node itself, and neither in what is queued nor in what is saved."""
    page.evaluate(ALONE, "InfiniteIDDiagnose")
    page.evaluate("async () => await window.app.queuePrompt(0)")
    page.wait_for_function(f"() => ({SHOWN})().includes('## Versions')", timeout=60_000)
    fit_view(page)
    page.screenshot(path=ARTIFACTS / "diagnose.png")
    prompt = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    assert [entry["inputs"] for entry in prompt.values()] == [{}]
    assert page.evaluate("() => window.app.graph.serialize().nodes[0].widgets_values") == []


def test_a_saved_file_is_named_on_the_node(page: Page) -> None:
    values = {**gallery_models().values, "filename_prefix": "identities/by the page"}
    graph = read(workflow_file("save_identity"), values)
    page.evaluate("graph => window.app.loadGraphData(graph)", graph)
    page.evaluate("async () => await window.app.queuePrompt(0)")
    page.get_by_text("Saved output/").first.wait_for(timeout=120_000)
    fit_view(page)
    page.screenshot(path=ARTIFACTS / "saved.png")


def test_error_shows_at_its_node(page: Page) -> None:
    """A photo without a face stops the run at Encode Identity, and the page marks that node."""
    values = {**gallery_models().values, "image": "noface.png"}
    page.evaluate("graph => window.app.loadGraphData(graph)", read(workflow_file("photo"), values))
    page.evaluate("async () => await window.app.queuePrompt(0)")
    page.wait_for_function("() => window.app.lastExecutionError", timeout=120_000)
    page.wait_for_timeout(500)
    page.screenshot(path=ARTIFACTS / "error.png")
    error = page.evaluate("() => window.app.lastExecutionError")
    assert error["node_type"] == "InfiniteIDEncode"
    assert "No face found in photo 1 of 1 (64x64)" in error["exception_message"]
    page.get_by_text("View details").first.click()
    page.get_by_text("No face found in photo").first.wait_for(timeout=10_000)
    page.screenshot(path=ARTIFACTS / "error-details.png")

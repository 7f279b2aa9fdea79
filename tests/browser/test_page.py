"""The real web page in a headless Chromium, over a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pack.dev.browser import open_page
from pack.dev.miniature import input_pictures, miniature
from pack.dev.server import running_server
from pack.dev.server_api import Server
from pack.dev.workflow import Workflow, read, to_prompt, workflow_file, workflow_files
from PIL import Image
from playwright.sync_api import Page

ARTIFACTS = Path(__file__).parents[2] / "ci-artifacts"
READY = "window.app?.graph && window.app.extensionManager && document.querySelector('canvas')"
BAD_NODES = """() => {
    const nodes = window.app.graph.nodes
    const unknown = n => n.constructor.nodeData === undefined && n.type !== 'MarkdownNote'
    return nodes.filter(n => n.has_errors || unknown(n)).map(n => n.type)
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    small = miniature()
    with running_server(models=small.models, custom_nodes=small.custom_nodes) as server:
        for path in input_pictures():
            server.upload(path)
        server.queue(to_prompt(read(workflow_file("save_identity"), small.values)))
        blank = server.base / "noface.png"
        Image.new("RGB", (64, 64)).save(blank)
        server.upload(blank)
        yield server


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Page]:
    with open_page(server.url) as page:
        page.wait_for_function(READY, timeout=120_000)
        yield page


@pytest.mark.parametrize("path", workflow_files(), ids=lambda path: path.stem)
def test_workflow_opens_and_converts(path: Path, page: Page) -> None:
    """No missing node, no red input, and what the page would queue is what we queue."""
    workflow = read(path, miniature().values)
    open_workflow(page, workflow)
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{path.stem}-opened.png")
    assert page.evaluate(BAD_NODES) == []
    assert page.locator(".p-dialog").count() == 0, "the page complains in a dialog"
    prompt = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    converted = {
        node: {"class_type": entry["class_type"], "inputs": entry["inputs"]}
        for node, entry in prompt.items()
    }
    assert converted == to_prompt(workflow)


def open_workflow(page: Page, workflow: Workflow) -> None:
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    page.wait_for_timeout(1500)
    page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(1000)


def test_queue_ends_with_a_picture_on_the_canvas(page: Page) -> None:
    open_workflow(page, read(workflow_file("photo"), miniature().values))
    page.evaluate("async () => await window.app.queuePrompt(0)")
    page.wait_for_function(
        "() => window.app.graph.nodes.some(n => n.type === 'SaveImage' && n.imgs?.length)",
        timeout=300_000,
    )
    page.wait_for_timeout(500)
    page.screenshot(path=ARTIFACTS / "photo-ran.png")


def test_error_shows_at_its_node(page: Page) -> None:
    """A photo without a face stops the run at Encode Identity, and the page marks that node."""
    values = {**miniature().values, "image": "noface.png"}
    page.evaluate("graph => window.app.loadGraphData(graph)", read(workflow_file("photo"), values))
    page.evaluate("async () => await window.app.queuePrompt(0)")
    page.wait_for_function("() => window.app.lastExecutionError", timeout=120_000)
    page.wait_for_timeout(500)
    page.screenshot(path=ARTIFACTS / "error.png")
    error = page.evaluate("() => window.app.lastExecutionError")
    assert error["node_type"] == "InfiniteIDEncodeIdentity"
    assert "No face found in photo 1 of 1 (64x64)" in error["exception_message"]
    page.get_by_text("View details").first.click()
    page.get_by_text("No face found in photo").first.wait_for(timeout=10_000)
    page.screenshot(path=ARTIFACTS / "error-details.png")

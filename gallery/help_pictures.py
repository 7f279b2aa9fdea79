"""The pictures of the help pages: `python -m dev help_pictures` draws them in the real page.

Each picture shows a node beside its neighbours after the miniature has run the workflow. One
picture of a whole workflow is for the README. Runs inside the environment.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page

from ..dev.browser import open_page
from ..dev.cache import ROOT
from ..dev.server_api import Server
from .miniature import gallery_models, running_gallery
from .workflow import Workflow, read, to_prompt, workflow_file

FOLDER = ROOT / "nodes" / "help" / "docs"
WHOLE = ROOT / "docs" / "workflow.jpg"
WIDTH, WHOLE_WIDTH = 720, 1600
QUALITIES, MOST_BYTES, WHOLE_BYTES = (50, 40, 30, 20), 40_000, 150_000
VIEWPORT = (2800, 1700)
LEFT, TOP, RIGHT, BOTTOM = 120, 120, 400, 200  # of the page: what its panels cover
SECONDS = 600.0
READY = "window.app?.graph && window.app.extensionManager && document.querySelector('canvas')"

# Node -> a workflow that has it, and the columns of its picture: titles or types of nodes.
SHOWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "InfiniteIDLoadModel": ("separate_models", ("InfiniteIDLoadModel", "InfiniteIDEncode")),
    "InfiniteIDLoadFaceAnalysis": (
        "separate_models",
        ("InfiniteIDLoadFaceAnalysis", "InfiniteIDEncode"),
    ),
    "InfiniteIDUnifiedLoader": (
        "photo",
        ("CheckpointLoaderSimple", "InfiniteIDUnifiedLoader", "InfiniteIDEncode"),
    ),
    "InfiniteIDEncode": ("photo", ("LoadImage", "InfiniteIDEncode")),
    "InfiniteIDApply": ("photo", ("InfiniteIDApply", "KSampler", "SaveImage")),
    "InfiniteIDMix": ("mix", ("InfiniteIDEncode", "InfiniteIDMix", "SaveImage")),
    "InfiniteIDBlend": ("sweep", ("InfiniteIDEncode", "InfiniteIDBlend", "SaveImage")),
    "InfiniteIDSaveIdentity": (
        "save_identity",
        ("InfiniteIDEncode", "InfiniteIDSaveIdentity"),
    ),
    "InfiniteIDLoadIdentity": (
        "load_identity",
        ("InfiniteIDUnifiedLoader", "InfiniteIDLoadIdentity", "SaveImage"),
    ),
    "InfiniteIDFaceMasks": ("places_from_a_picture", ("Where they are", "InfiniteIDFaceMasks")),
    "InfiniteIDColumnMask": (
        "two_people",
        ("InfiniteIDColumnMask", "InfiniteIDApply", "KSampler", "SaveImage"),
    ),
    "InfiniteIDFaceSimilarity": ("score", ("LoadImage", "InfiniteIDFaceSimilarity")),
    "InfiniteIDCropFaces": (
        "refine_small_faces",
        ("Picture with a small face", "InfiniteIDCropFaces"),
    ),
    "InfiniteIDPickBest": ("best_of_batch", ("KSampler", "InfiniteIDPickBest", "SaveImage")),
    "InfiniteIDPasteFaces": (
        "refine_small_faces",
        ("InfiniteIDCropFaces", "InfiniteIDPasteFaces", "SaveImage"),
    ),
    "InfiniteIDTrainAdapter": ("train_adapter", ("InfiniteIDTrainAdapter",)),
    "InfiniteIDRefineIdentity": ("refine_identity", ("InfiniteIDRefineIdentity",)),
    "InfiniteIDLearnEmbedding": ("learn_embedding", ("InfiniteIDLearnEmbedding",)),
    "InfiniteIDLearnStagedIdentity": (
        "learn_staged_identity",
        ("InfiniteIDLearnStagedIdentity",),
    ),
    "InfiniteIDStagedIdentityPrompt": (
        "learn_staged_identity",
        ("InfiniteIDStagedIdentityPrompt", "InfiniteIDApplyStagedIdentity", "KSampler"),
    ),
    "InfiniteIDApplyStagedIdentity": (
        "staged_identity",
        ("InfiniteIDApplyStagedIdentity", "InfiniteIDApply", "InfiniteIDContactSheet"),
    ),
    "InfiniteIDContactSheet": ("style", ("KSampler", "InfiniteIDContactSheet", "SaveImage")),
}
# Nodes that no workflow has, in a row of their own.
ALONE: dict[str, tuple[str, ...]] = {
    "InfiniteIDEncodeIdentity": ("LoadImage", "InfiniteIDEncodeIdentity", "InfiniteIDApply"),
    "InfiniteIDFaceLoRA": ("CheckpointLoaderSimple", "InfiniteIDFaceLoRA", "InfiniteIDApply"),
    "InfiniteIDSaveTime": ("InfiniteIDApply", "InfiniteIDSaveTime", "KSampler"),
    "InfiniteIDRegionalPrompt": ("CLIPTextEncode", "InfiniteIDRegionalPrompt", "KSampler"),
    "InfiniteIDGrid": ("InfiniteIDGrid",),
    "InfiniteIDRefineFaces": ("InfiniteIDApply", "InfiniteIDRefineFaces", "SaveImage"),
    "InfiniteIDScorePictures": ("VAEDecode", "InfiniteIDScorePictures"),
    "InfiniteIDMixEmbeddings": ("InfiniteIDMixEmbeddings",),
    "InfiniteIDExportStagedIdentity": ("InfiniteIDExportStagedIdentity",),
    "InfiniteIDIdentityGallery": ("InfiniteIDIdentityGallery",),
    "InfiniteIDDiagnose": ("InfiniteIDDiagnose",),
}
RUN_ALONE = {"InfiniteIDIdentityGallery", "InfiniteIDDiagnose"}

CREATE = """kinds => {
    const graph = window.app.graph
    graph.clear()
    let last = null
    for (const kind of kinds) {
        const node = LiteGraph.createNode(kind)
        graph.add(node)
        if (last) last.connectByType(0, node, last.outputs[0].type)
        last = node
    }
}"""
# What the report says of the machine that draws the picture, as users may read it of theirs.
IMPERSONAL = """() => {
    const shown = document.querySelector("textarea[readonly]")
    shown.value = shown.value
        .replace(/ on [^;]*;/, " on Linux;")
        .replaceAll(/\\S+(?=\\/models\\/)/g, "~/ComfyUI")
}"""
ARRANGE = """columns => {
    const graph = window.app.graph, gap = 60, title = LiteGraph.NODE_TITLE_HEIGHT
    const find = node => columns.findIndex(name => name === node.title || name === node.type)
    for (const group of [...graph.groups]) graph.remove(group)
    for (const id of [...(graph.reroutes?.keys() ?? [])]) graph.removeReroute(id)
    for (const node of [...graph.nodes]) {
        if (find(node) < 0) graph.remove(node)
        else if (!node.widgets?.some(widget => widget.element)) {
            node.setSize([Math.min(320, node.size[0]), node.computeSize()[1]])
        }
    }
    let left = 0
    for (const index of columns.keys()) {
        const nodes = graph.nodes.filter(node => find(node) === index)
        let top = 0
        for (const node of nodes) {
            node.pos = [left, top]
            top += node.size[1] + title + gap / 2
        }
        left += Math.max(...nodes.map(node => node.size[0])) + gap
    }
}"""
# Moves everything into an area of the page, and returns what it covers there.
FIT = """([left, top, width, height]) => {
    const {canvas, ds} = window.app.canvas, margin = 24, title = LiteGraph.NODE_TITLE_HEIGHT
    const boxes = [
        ...window.app.graph.groups.map(group => [...group.pos, ...group.size]),
        ...window.app.graph.nodes.map(({pos: [x, y], size: [w, h]}) => [x, y - title, w, h + title])
    ]
    const [x, y] = [0, 1].map(side => Math.min(...boxes.map(box => box[side])) - margin)
    const right = Math.max(...boxes.map(box => box[0] + box[2])) + margin
    const bottom = Math.max(...boxes.map(box => box[1] + box[3])) + margin
    const [w, h] = [right - x, bottom - y]
    ds.scale = Math.min(1, width / w, height / h)
    const page = canvas.getBoundingClientRect()
    ds.offset = [(left - page.left) / ds.scale - x, (top - page.top) / ds.scale - y]
    window.app.canvas.setDirty(true, true)
    return {x: left, y: top, width: w * ds.scale, height: h * ds.scale}
}"""


def draw_all(nodes: Sequence[str]) -> None:
    """Draw every picture, or only those of the nodes that are named."""
    models = gallery_models()
    wanted = list(nodes) or [*SHOWN, *ALONE, WHOLE.stem]
    with running_gallery(models) as server:
        saved = server.queue(to_prompt(read(workflow_file("save_identity"), models.values)))
        assert not saved.errors, saved.errors
        with open_page(server.url) as page:
            page.set_viewport_size({"width": VIEWPORT[0], "height": VIEWPORT[1]})
            page.wait_for_function(READY, timeout=SECONDS * 1000)
            for path, picture in _draw(server, page, wanted):
                _save(picture, path)
                print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e3:.1f} kB", flush=True)


def _save(picture: Image.Image, path: Path) -> None:
    """Write a picture in the best quality at which it is small enough."""
    most = WHOLE_BYTES if path == WHOLE else MOST_BYTES
    for quality in QUALITIES:
        picture.save(path, quality=quality)
        if path.stat().st_size <= most:
            break


def _draw(server: Server, page: Page, wanted: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    for node in [node for node in SHOWN if node in wanted]:
        name, columns = SHOWN[node]
        _open(server, page, read(workflow_file(name), gallery_models().values))
        yield FOLDER / f"{node}.webp", _shoot(page, WIDTH, columns)
    for node in [node for node in ALONE if node in wanted]:
        page.evaluate(CREATE, ALONE[node])
        if node in RUN_ALONE:
            _queue(server, page)
        if node == "InfiniteIDDiagnose":
            page.evaluate(IMPERSONAL)
        yield FOLDER / f"{node}.webp", _shoot(page, WIDTH, ALONE[node])
    if WHOLE.stem in wanted:
        _open(server, page, read(workflow_file("photo"), gallery_models().values))
        yield WHOLE, _shoot(page, WHOLE_WIDTH)


def _open(server: Server, page: Page, workflow: Workflow) -> None:
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    page.wait_for_timeout(1000)
    _queue(server, page)


def _queue(server: Server, page: Page) -> None:
    """Queue what is on the page and wait for its end. Raises RuntimeError when a node complains."""
    server.post("/free", free_memory=True)  # else nodes that have run would show no previews
    before: dict[str, Any] = server.get("/history")
    page.evaluate("async () => await window.app.queuePrompt(0)")
    end = time.monotonic() + SECONDS
    while not (new := server.get("/history").keys() - before.keys()):
        if time.monotonic() > end:
            raise TimeoutError(f"Nothing was made in {SECONDS:.0f} s")
        page.wait_for_timeout(500)
    status = server.get("/history")[new.pop()]["status"]
    if status["status_str"] != "success":
        raise RuntimeError(json.dumps(status)[:1000])
    page.wait_for_timeout(1000)  # nodes grow when their previews arrive


def _shoot(page: Page, width: int, columns: tuple[str, ...] = ()) -> Image.Image:
    """Take a picture of the canvas; with columns, of their nodes alone, side by side."""
    if columns:
        page.evaluate(ARRANGE, list(columns))
    area = [LEFT, TOP, VIEWPORT[0] - LEFT - RIGHT, VIEWPORT[1] - TOP - BOTTOM]
    clip = page.evaluate(FIT, area)
    page.wait_for_timeout(1500)  # until previews are there and texts lie on their nodes
    picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    picture.thumbnail((width, width), Image.Resampling.LANCZOS)
    return picture

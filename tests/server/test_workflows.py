"""Every workflow that the pack ships runs through the API on the miniature."""

import json
from pathlib import Path

import pytest
from pack.dev.cache import ROOT
from pack.dev.comfyui import DEFAULT
from pack.dev.server_api import Server
from pack.gallery import draw, draw_blueprint
from pack.gallery.blueprint import NAME
from pack.gallery.miniature import gallery_models
from pack.gallery.workflow import read, to_prompt, workflow_file, workflow_files

STEPS = 8
"""Fewer than the files have: enough for a face that the nodes behind the sampler find."""


@pytest.fixture(scope="module")
def saved_identity(server: Server) -> str:
    """What the workflow that loads an identity finds, as Load Identity names it."""
    run = server.queue(to_prompt(read(workflow_file("save_identity"), gallery_models().values)))
    (saved,) = [o["identities"][0] for o in run.outputs.values() if "identities" in o]
    return f"{saved['subfolder']}/{saved['filename']} [{saved['type']}]"


@pytest.mark.parametrize("path", workflow_files(), ids=lambda path: path.stem)
def test_workflow_runs(server: Server, saved_identity: str, path: Path) -> None:
    values = {**gallery_models().values, "steps": STEPS, "identity_name": saved_identity}
    prompt = to_prompt(read(path, values))
    run = server.queue(prompt)
    assert run.errors == []
    kinds = {prompt[node]["class_type"] for node in run.outputs}
    assert kinds & {"SaveImage", "InfiniteIDSaveIdentity"}


def test_files_are_what_the_nodes_of_today_give(server: Server) -> None:
    """A node that was changed is in the files when `python -m dev workflows` has run."""
    if server.get("/system_stats")["system"]["comfyui_version"] != DEFAULT:
        pytest.skip("drawn for another host, whose stock nodes have other inputs")
    drawn = draw(server.object_info())
    stale = [p.name for p in workflow_files() if json.loads(p.read_text("utf-8")) != drawn[p.stem]]
    assert stale == [], "run: python -m dev workflows"
    blueprint = json.loads((ROOT / "subgraphs" / f"{NAME}.json").read_text("utf-8"))
    assert blueprint == draw_blueprint(server.object_info()), "run: python -m dev workflows"

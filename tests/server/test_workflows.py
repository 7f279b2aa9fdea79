"""Every workflow that the pack ships runs through the API on the miniature."""

from pathlib import Path

import pytest
from pack.dev.miniature import miniature
from pack.dev.server_api import Server
from pack.dev.workflow import read, to_prompt, workflow_file, workflow_files


@pytest.fixture(scope="module")
def saved_identity(server: Server) -> str:
    """What the workflow that loads an identity finds, as Load Identity names it."""
    run = server.queue(to_prompt(read(workflow_file("save_identity"), miniature().values)))
    (saved,) = [o["identities"][0] for o in run.outputs.values() if "identities" in o]
    return f"{saved['subfolder']}/{saved['filename']} [{saved['type']}]"


@pytest.mark.parametrize("path", workflow_files(), ids=lambda path: path.stem)
def test_workflow_runs(server: Server, saved_identity: str, path: Path) -> None:
    prompt = to_prompt(read(path, {**miniature().values, "identity_name": saved_identity}))
    run = server.queue(prompt)
    assert run.errors == []
    kinds = {prompt[node]["class_type"] for node in run.outputs}
    assert kinds & {"SaveImage", "InfiniteIDSaveIdentity"}

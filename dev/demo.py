"""`python -m dev demo`: turns a photo into pictures of that person with a real ComfyUI server."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ..gallery.miniature import miniature, running_gallery
from ..gallery.workflow import read, to_prompt, workflow_file
from .cache import ROOT, step
from .server_api import Prompt, Run

RESULTS = ROOT / "demo-output"
NOTICE = "Drawn by the miniature, a tiny SDXL that was trained on drawings."


def demo() -> int:
    """Queue the workflow that compares styles; save its sheet and what Encode Identity saw."""
    small = miniature()
    workflow = workflow_file("style")
    with ExitStack() as stack:
        with step("Starting ComfyUI"):
            server = stack.enter_context(running_gallery(small))
        prompt = to_prompt(read(workflow, small.values))
        print(f"Queueing {workflow.relative_to(ROOT)}")
        run = server.queue(prompt, report=partial(_show_progress, prompt))
        return _finish(run, prompt, server.base)


def _show_progress(prompt: Prompt, event: str, data: dict[str, Any]) -> None:
    if event == "progress":
        node = prompt[data["node"]]["class_type"]
        print(f"  {node}: {data['value']} of {data['max']}", flush=True)


def _finish(run: Run, prompt: Prompt, base: Path) -> int:
    for node, seconds in run.seconds.items():
        print(f"  {seconds:6.2f} s  {prompt[node]['class_type']}")
    for error in run.errors:
        print(f"error in {prompt[error.node]['class_type']}: {error.message} {error.details}")
    if run.errors:
        return 1
    RESULTS.mkdir(exist_ok=True)
    for node, output in run.outputs.items():
        for entry in output.get("images", ()):
            source = base / entry["type"] / entry["subfolder"] / entry["filename"]
            target = RESULTS / f"{prompt[node]['class_type']}-{entry['filename']}"
            shutil.copy(source, target)
            print(f"Saved {target}")
    print(NOTICE)
    return 0

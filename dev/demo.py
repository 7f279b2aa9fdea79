"""`python -m dev demo`: one photo in, one picture out, through a real ComfyUI server."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from .cache import ROOT, step
from .photos import photos
from .server import running_server
from .server_api import Prompt, Run
from .small_models import small_models
from .workflow import read, to_prompt, workflow_file

RESULTS = ROOT / "demo-output"
NOTICE = "The small model's weights are random: the picture shows that all runs, not a person."


def demo() -> int:
    """Queue the first workflow with a real photo; save picture and aligned face."""
    small = small_models()
    workflow = workflow_file("photo")
    with ExitStack() as stack:
        with step("Starting ComfyUI"):
            server = stack.enter_context(
                running_server(models=small.models, custom_nodes=small.custom_nodes)
            )
        image = server.upload(photos()["obama"])
        prompt = to_prompt(read(workflow, {**small.values, "image": image}))
        print(f"Queueing {workflow.relative_to(ROOT)} with the photo {image}")
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

"""Times the pack's nodes on a real server: encoding, applying and queueing again."""

from __future__ import annotations

from typing import Any

from ..dev.server_api import Prompt, Run, Server
from ..gallery.miniature import miniature, running_gallery
from ..gallery.workflow import read, to_prompt, workflow_file
from .timing import Spread

ENCODE, APPLY, SAMPLER = "InfiniteIDEncode", "InfiniteIDApply", "KSampler"


def time_nodes(repeats: int) -> dict[str, Any]:
    """Return milliseconds of nodes with changed inputs, and of a queue without any change.

    All models are the miniature's, the face nets included; the first run loads them.
    """
    small = miniature()
    prompt = to_prompt(read(workflow_file("separate_models"), small.values))
    prompt[_find(prompt, SAMPLER)]["inputs"]["steps"] = 1
    with running_gallery(small) as server:
        _queue(server, prompt)
        encode, apply = [], []
        for number in range(repeats):
            prompt[_find(prompt, "LoadImage")]["inputs"]["image"] = f"face_{number % 2 + 1}.jpg"
            encode.append(_time(_queue(server, prompt), _find(prompt, ENCODE)))
            prompt[_find(prompt, APPLY)]["inputs"]["weight"] = 0.9 - 0.01 * number
            apply.append(_time(_queue(server, prompt), _find(prompt, APPLY)))
        again = [_queue(server, prompt) for _ in range(repeats)]
        seconds = [_read_milliseconds(server, run) for run in again]
    return {
        "encode": vars(Spread.of(encode)),
        "apply": vars(Spread.of(apply)),
        "again": vars(Spread.of(seconds)),
        "executed": sum(len(prompt.keys() - set(run.cached)) for run in again),
    }


def _find(prompt: Prompt, kind: str) -> str:
    return next(name for name, node in prompt.items() if node["class_type"] == kind)


def _queue(server: Server, prompt: Prompt) -> Run:
    run = server.queue(prompt)
    if run.errors:
        raise RuntimeError(f"The workflow did not run: {run.errors}")
    return run


def _time(run: Run, node: str) -> float:
    return 1e3 * run.seconds[node]


def _read_milliseconds(server: Server, run: Run) -> float:
    """Return milliseconds from start to end of the execution, by the server's own clock."""
    messages = server.get(f"/history/{run.prompt_id}")[run.prompt_id]["status"]["messages"]
    stamps = {name: data["timestamp"] for name, data in messages}
    return float(stamps["execution_success"] - stamps["execution_start"])

"""`python -m dev soak`: hundreds of random prompts through one server, some interrupted.

It checks three things. A repeated prompt gives the same bits when it is computed anew, whatever ran
in between. An interrupt stops the prompt at the current node. The server's memory does not grow.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from ...dev.server import running_server
from ...dev.server_api import Run, Server, ServerError
from ...gallery.miniature import miniature
from .control import NAME as CONTROL
from .control import write_control
from .prompts import SLOW, Choices, Plan, draw, identity_to_save
from .report import HELD_EVERY, Held, Turn, write_report

SEED = 6
PEOPLE = 12
INTERRUPTS = ("sampling", "encoding", "sweep")
ARGUMENTS = ("--cache-classic",)
"""Newer hosts keep the results of all prompts while memory lasts, and so grow by design."""
SMALL = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0},
    },
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
PROBE = Path(__file__).with_name("probe.py")
OTHER = "again-"
"""A prefix of a photo's name. The host takes the same photo for another one."""


@dataclass
class Soak:
    """One server, and its results so far."""

    server: Server
    choices: Choices
    rng: random.Random = field(default_factory=lambda: random.Random(SEED))
    turns: list[Turn] = field(default_factory=list)
    pictures: list[tuple[Plan, str]] = field(default_factory=list)

    def run(self, prompts: int) -> None:
        """Run prompts; Ctrl-C ends the run early."""
        with suppress(KeyboardInterrupt):
            for number in range(1, prompts + 1):
                turn = self._take(number)
                self.turns.append(turn)
                print(_describe(turn), flush=True)
                if number % HELD_EVERY == 0:
                    turn.held = self._look()

    def _take(self, number: int) -> Turn:
        start = time.perf_counter()
        turn = self._choose(number)
        turn.seconds = time.perf_counter() - start
        turn.memory = psutil.Process(self.server.pid).memory_info().rss / 1e6
        return turn

    def _look(self) -> Held:
        """Measure what the server holds without its models, the last results and the history.

        For the page's history ComfyUI keeps the last 10,000 prompts.
        """
        self._free(unload=True)
        self.server.post("/history", clear=True)
        return Held(**self.server.get("/soak/held"))

    def _choose(self, number: int) -> Turn:
        """Interrupt one of six prompts and repeat one. After every other interrupt comes a repeat,
        which would show what the interrupt left behind."""
        if number % 6 == 3:
            return self._interrupt(number, INTERRUPTS[number // 6 % len(INTERRUPTS)])
        if self.pictures and (number % 6 == 0 or number % 12 == 4):
            return self._repeat(number)
        return self._draw_new(number)

    def _draw_new(self, number: int) -> Turn:
        turn = Turn(number, "new", draw(self.rng, self.choices))
        digest = self._finish(turn, self.server.queue(turn.plan.prompt))
        if not turn.problem:
            self.pictures.append((turn.plan, digest))
        return turn

    def _repeat(self, number: int) -> Turn:
        plan, before = self.rng.choice(self.pictures)
        turn = Turn(number, "repeat", plan, way=self.rng.choice(("freed", "renamed")))
        if turn.way == "freed":
            self._free(unload=self.rng.random() < 0.5)
        else:
            plan = plan.rename(lambda name: OTHER + name)
        run = self.server.queue(plan.prompt)
        if self._finish(turn, run) != before:
            turn.problem = turn.problem or "another picture than before"
        elif plan.sampler not in run.seconds:
            turn.problem = "not computed again"
        return turn

    def _free(self, unload: bool) -> None:
        """Free memory. The server does so only after a prompt, so a small prompt is queued."""
        self.server.post("/free", free_memory=True, unload_models=unload)
        self.server.queue(SMALL)

    def _interrupt(self, number: int, what: str) -> Turn:
        plan = draw(self.rng, self.choices, what)
        turn = Turn(number, "interrupt", plan, way=what)
        node = plan.encoder if what == "encoding" else plan.sampler
        run = self.server.queue(plan.prompt, report=partial(self._stop, turn, node))
        if run.errors:
            turn.problem = run.errors[0].message
        elif turn.stopped_at != plan.prompt[node]["class_type"]:
            turn.problem = f"stopped at {turn.stopped_at or 'nothing'}"
        return turn

    def _stop(self, turn: Turn, node: str, event: str, data: dict[str, Any]) -> None:
        """Interrupt at the node's first step; note where the server says that it stopped."""
        if event == "progress" and data["node"] == node and data["value"] == 1:
            self.server.post("/interrupt")
        elif event == "execution_interrupted":
            turn.stopped_at = data["node_type"]

    def _finish(self, turn: Turn, run: Run) -> str:
        """Return the digest of the pictures that a run saved."""
        if run.errors:
            turn.problem = f"{run.errors[0].kind}: {run.errors[0].message}"
            return ""
        digest = hashlib.sha256()
        for file in self.server.files(run, turn.plan.picture):
            pixels = np.asarray(Image.open(file))
            digest.update(str(pixels.shape).encode() + pixels.tobytes())
        return digest.hexdigest()


def soak(prompts: int) -> int:
    """Run it, write the report, and return 1 if anything did not hold."""
    small = miniature()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = small.models | {"controlnet": [write_control(folder)]}
        photos = _draw_photos(folder)
        with running_server(
            models=models, custom_nodes=[*small.custom_nodes, PROBE], arguments=ARGUMENTS
        ) as server:
            for photo in photos:
                server.upload(photo)
                server.upload(photo, OTHER + photo.name)
            choices = _ask(server, [photo.name for photo in photos], small.values)
            done = Soak(server, choices)
            done.run(prompts)
            version = server.get("/system_stats")["system"]["comfyui_version"]
    return write_report(done.turns, version)


def _ask(server: Server, photos: list[str], values: dict[str, Any]) -> Choices:
    """Ask for the choices of this host, after an identity file is saved."""
    info = server.object_info()
    options = partial(_options, info)
    choices = Choices(
        samplers=[name for name in options("KSampler", "sampler_name") if name not in SLOW],
        schedulers=options("KSampler", "scheduler"),
        methods=options("InfiniteIDBlend", "method"),
        photos=photos,
        control=CONTROL,
        values=dict(values),
    )
    plan = identity_to_save(choices)
    run = server.queue(plan.prompt)
    if run.errors:
        raise ServerError(f"No identity was saved: {run.errors}", server.log)
    (saved,) = run.outputs[plan.picture]["identities"]
    name = f"{saved['subfolder']}/{saved['filename']} [{saved['type']}]"
    choices.values["identity_name"] = name
    return choices


def _options(info: dict[str, Any], node: str, name: str) -> list[str]:
    """Return the choices of a node's widget, from either of the forms that hosts use."""
    kind, *rest = info[node]["input"]["required"][name]
    return list(kind) if isinstance(kind, list) else list(rest[0]["options"])


def _draw_photos(folder: Path) -> list[Path]:
    """Draw people of the miniature's world who are in no training picture."""
    from ...miniature.faces import render
    from ...miniature.world.identity import draw_identity
    from ...miniature.world.scene import draw_scene

    paths = []
    for person in range(PEOPLE):
        picture = render(draw_identity(2_000_000 + person), draw_scene(23, "photo")).pixels
        paths.append(folder / f"person-{person}.png")
        Image.fromarray(picture).resize((512, 512), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def _describe(turn: Turn) -> str:
    traits = ", ".join(turn.plan.traits.values())
    way = f" ({turn.way})" if turn.way else ""
    verdict = f"  PROBLEM: {turn.problem}" if turn.problem else ""
    figures = f"{turn.seconds:5.1f} s  {turn.memory:6.0f} MB"
    return f"{turn.number:4}  {figures}  {turn.kind}{way}: {traits}{verdict}"

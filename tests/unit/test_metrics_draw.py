"""Plans, and their drawing by servers that go and come back; the servers are small stand-ins."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pack.infinite_id.errors import UserError
from pack.infinite_id.metrics import command, draw, remote
from pack.infinite_id.metrics.drawn import DRAWN, read_drawn
from pack.infinite_id.metrics.material import read_material
from pack.infinite_id.metrics.plan import SHIPPED, WORKFLOWS, read_plan, shipped_prompts
from pack.infinite_id.metrics.workflow import fill, list_classes, read_workflow

WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": ""}},
    "2": {
        "class_type": "Text",
        "inputs": {"text": "", "from": ["1", 0]},
        "_meta": {"title": "Prompt"},
    },
    "3": {"class_type": "SaveImage", "inputs": {"seed": 0, "images": ["2", 0]}},
}
INPUTS = {
    "LoadImage.image": "{photo}",
    "Prompt.text": "{prompt}, {seed}",
    "SaveImage.seed": "{seed}",
}


class StandIn:
    """As much of ComfyUI's API as `draw` asks for; a picture is its prompt as text."""

    def __init__(self, classes: set[str], dies_at: int = 10**6, back: bool = False) -> None:
        self.classes, self.dies_at, self.back = classes, dies_at, back
        self.drawn: list[str] = []
        self.uploads = self.deaths = 0
        self.upload_status, self.view_status = 200, 200
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_get("/object_info", self._info)
        app.router.add_post("/upload/image", self._upload)
        app.router.add_post("/prompt", self._prompt)
        app.router.add_get("/queue", self._queue)
        app.router.add_get("/history/{number}", self._history)
        app.router.add_get("/view", self._view)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(self._runner.setup())
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _info(self, request: web.Request) -> web.Response:
        if len(self.drawn) >= self.dies_at:
            self.deaths += 1
            if not self.back or self.deaths < 3:
                request.transport.abort()
            else:
                self.dies_at = 10**6
        return web.json_response({name: {} for name in self.classes})

    async def _upload(self, request: web.Request) -> web.Response:
        self.uploads += 1
        if self.upload_status != 200:
            return web.Response(status=self.upload_status, text="no")
        return web.json_response({"name": (await request.post())["image"].filename})

    async def _prompt(self, request: web.Request) -> web.Response:
        prompt = (await request.json())["prompt"]
        if "refuse" in prompt["2"]["inputs"]["text"]:
            error = {"message": "Value not in list", "details": "text"}
            report = {"class_type": "Text", "errors": [error]}
            return web.json_response({"node_errors": {"2": report}, "error": {}}, status=400)
        self.waiting = json.dumps(prompt)
        return web.json_response({"prompt_id": "7"})

    async def _queue(self, request: web.Request) -> web.Response:
        if len(self.drawn) >= self.dies_at:
            request.transport.abort()
        return web.json_response({"queue_running": [[0, "7"]], "queue_pending": []})

    async def _history(self, _: web.Request) -> web.Response:
        await asyncio.sleep(0.01)
        self.drawn.append(self.waiting)
        image = {"filename": "a.png", "subfolder": "", "type": "output"}
        entry = {"status": {"messages": []}, "outputs": {"3": {"images": [image]}}}
        if "fail" in self.waiting:
            data = {"node_type": "Text", "exception_message": "no room \n"}
            entry["status"]["messages"].append(["execution_error", data])
        if "stop" in self.waiting:
            entry = {"status": {"messages": [["execution_interrupted", {}]]}, "outputs": {}}
        return web.json_response({"7": entry})

    async def _view(self, _: web.Request) -> web.Response:
        return web.Response(body=self.waiting.encode(), status=self.view_status)


ALL = {"LoadImage", "Text", "SaveImage"}


@pytest.fixture
def start() -> Iterator[Any]:
    running: list[StandIn] = []

    def begin(*args: Any, **options: Any) -> StandIn:
        running.append(StandIn(*args, **options))
        return running[-1]

    yield begin
    for one in running:
        one.stop()
    gc.collect()  # closed connections' tasks; later they would end within pytest's own parsing


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(draw, "_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(draw, "PATIENCE", 2.0)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Two people, two prompts, three seeds: twelve cells."""
    (tmp_path / "flow.json").write_text(json.dumps(WORKFLOW))
    people = {}
    for name in ("anna", "bert"):
        (tmp_path / f"{name}.jpg").write_bytes(name.encode())
        people[name] = {"photos": [f"{name}.jpg"], "noun": "person"}
    data = {
        "people": people,
        "prompts": {"a": "a {noun}", "b": "a {noun} outside"},
        "seeds": [0, 1, 2],
        "methods": {"ours": {"workflow": "flow.json", "inputs": INPUTS}},
    }
    (tmp_path / "plan.json").write_text(json.dumps(data))
    return tmp_path / "plan.json"


def change(plan: Path, **values: Any) -> None:
    plan.write_text(json.dumps({**json.loads(plan.read_text()), **values}))


def pictures(out: Path) -> dict[str, Any]:
    return {
        path.relative_to(out).as_posix(): json.loads(path.read_bytes())
        for path in out.rglob("*.png")
    }


def test_a_plan_is_drawn_once(plan: Path, start: Any, tmp_path: Path) -> None:
    one, out = start(ALL), tmp_path / "out"
    outcome = draw.draw(plan, out, [one.url])
    assert (outcome.drawn, outcome.failed, outcome.skipped) == (12, {}, {})
    found = pictures(out)
    assert len(found) == len(one.drawn) == 12
    prompt = found["ours/bert/b/2.png"]
    assert prompt["2"]["inputs"]["text"] == "a person outside, 2"
    assert prompt["3"]["inputs"]["seed"] == 2
    assert prompt["2"]["inputs"]["from"] == ["1", 0]
    assert one.uploads == 2
    assert draw.draw(plan, out, [one.url]).drawn == 0
    assert len(one.drawn) == 12
    (out / "ours" / "anna" / "a" / "1.png").unlink()
    assert draw.draw(plan, out, [one.url]).drawn == 1
    kept = read_plan(out / "plan.json")
    assert kept.people["anna"].photos[0].read_bytes() == b"anna"


def test_a_server_that_dies_loses_nothing(plan: Path, start: Any, tmp_path: Path) -> None:
    one, other = start(ALL), start(ALL, dies_at=3)
    outcome = draw.draw(plan, tmp_path / "out", [one.url, other.url])
    assert outcome.drawn == len(pictures(tmp_path / "out")) == 12
    saved = {json.dumps(prompt) for prompt in pictures(tmp_path / "out").values()}
    assert len(saved) == 12
    assert len(other.drawn) == 3
    assert len(one.drawn) + len(other.drawn) == 12, "none was drawn twice"


def test_a_server_that_comes_back_goes_on(plan: Path, start: Any, tmp_path: Path) -> None:
    one = start(ALL, dies_at=3, back=True)
    assert draw.draw(plan, tmp_path / "out", [one.url]).drawn == 12
    assert one.deaths == 3
    assert len(one.drawn) == 12


def test_without_any_server_what_was_drawn_is_kept(plan: Path, start: Any, tmp_path: Path) -> None:
    one = start(ALL, dies_at=5)
    with pytest.raises(UserError, match=r"No server that can draw what is left answers"):
        draw.draw(plan, tmp_path / "out", [one.url])
    assert len(pictures(tmp_path / "out")) == 5
    assert draw.draw(plan, tmp_path / "out", [start(ALL).url]).drawn == 7


def test_a_method_goes_to_the_servers_that_have_its_nodes(
    plan: Path, start: Any, tmp_path: Path
) -> None:
    peer = {**WORKFLOW, "4": {"class_type": "Peer", "inputs": {}}}
    (tmp_path / "peer.json").write_text(json.dumps(peer))
    own = {"workflow": "flow.json", "inputs": INPUTS}
    change(plan, methods={"ours": own, "peer": {"workflow": "peer.json", "inputs": INPUTS}})
    one, other = start(ALL), start({*ALL, "Peer"})
    outcome = draw.draw(plan, tmp_path / "out", [one.url])
    assert (outcome.drawn, outcome.skipped) == (12, {"peer": {"Peer"}})
    assert draw.draw(plan, tmp_path / "out", [one.url, other.url]).drawn == 12
    assert len(one.drawn) == len(other.drawn) == 12


def test_what_a_server_refuses_is_told(
    plan: Path, start: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(plan, prompts={"a": "a {noun}", "b": "refuse", "c": "fail"}, seeds=[0])
    arguments = ["draw", str(plan), "--out", str(tmp_path / "out"), "--server", start(ALL).url]
    assert command.main(arguments) == 1
    told = capsys.readouterr()
    assert "2 pictures drawn, 4 failed" in told.out
    assert "failed: ours/anna/b/0.png: Text: Value not in list text" in told.err
    assert "failed: ours/bert/c/0.png: Text: no room\n" in told.err


def test_a_plan_may_grow_and_change(plan: Path, start: Any, tmp_path: Path) -> None:
    """What is drawn anew: cells that are new, and those of another prompt, photo or workflow."""
    one, out = start(ALL), tmp_path / "out"

    def redraw() -> tuple[int, int]:
        outcome = draw.draw(plan, out, [one.url])
        return outcome.drawn, outcome.outdated

    assert redraw() == (12, 0)
    change(plan, seeds=[0, 1, 2, 5])
    assert redraw() == (4, 0)
    change(plan, prompts={"a": "a {noun} inside", "b": "a {noun} outside"})
    before = pictures(out)
    assert redraw() == (8, 8)
    after = pictures(out)
    assert {name for name in after if after[name] != before[name]} == {
        name for name in after if name.split("/")[2] == "a"
    }
    (tmp_path / "anna.jpg").write_bytes(b"another photo")
    assert redraw() == (8, 8)
    (tmp_path / "flow.json").write_text(json.dumps({**WORKFLOW, "5": WORKFLOW["1"]}))
    assert redraw() == (16, 16)
    assert redraw() == (0, 0)


def test_pictures_of_other_origin_stay(plan: Path, start: Any, tmp_path: Path) -> None:
    own = tmp_path / "out" / "ours" / "anna" / "a" / "0.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"by hand")
    assert draw.draw(plan, tmp_path / "out", [start(ALL).url]).drawn == 11
    assert own.read_bytes() == b"by hand"


def test_a_line_that_was_cut_off_says_nothing(plan: Path, start: Any, tmp_path: Path) -> None:
    """By a kill in the middle of a line, and of a letter; the next line is whole again."""
    one, out = start(ALL), tmp_path / "out"
    change(plan, people={"zoë": {"photos": ["anna.jpg"], "noun": "person"}}, seeds=[0])
    assert draw.draw(plan, out, [one.url]).drawn == 2
    lines = (out / DRAWN).read_bytes().splitlines(keepends=True)
    (out / "ours" / "zoë" / "b" / "0.png").unlink()
    cut = lines[1][: lines[1].index("ë".encode()) + 1]
    for damaged in (cut, b"{}\n", b"7\n", b"\0\0\0"):
        (out / DRAWN).write_bytes(lines[0] + damaged)
        assert draw.draw(plan, out, [one.url]).drawn == 1
        assert set(read_drawn(out)) == {"ours/zoë/a/0.png", "ours/zoë/b/0.png"}
        assert len((out / DRAWN).read_text("utf-8").splitlines()) == 2
        (out / "ours" / "zoë" / "b" / "0.png").unlink()


def test_pictures_of_an_older_plan_are_kept_and_not_scored(
    plan: Path, start: Any, tmp_path: Path
) -> None:
    """Until a server draws them anew; if the plan is as it was, they are good again."""
    out = tmp_path / "out"
    draw.draw(plan, out, [start(ALL).url])
    before, data = pictures(out), plan.read_text()
    change(plan, prompts={"a": "a {noun} inside", "b": "a {noun} outside"})
    with pytest.raises(UserError, match="No server"):
        draw.draw(plan, out, ["http://127.0.0.1:1"])
    assert pictures(out) == before
    outdated = {path.relative_to(out).as_posix() for path in read_material(out).outdated}
    assert outdated == {name for name in before if name.split("/")[2] == "a"}
    plan.write_text(data)
    assert draw.draw(plan, out, ["http://127.0.0.1:1"]).drawn == 0
    assert not read_material(out).outdated
    change(plan, prompts={"a": "a {noun} inside", "b": "a {noun} outside"})
    assert draw.draw(plan, out, [start(ALL).url]).outdated == 6
    assert not read_material(out).outdated


def test_a_plan_may_lie_among_its_pictures(plan: Path, start: Any, tmp_path: Path) -> None:
    """It stays as it is written, and so do the photos, whatever their order."""
    one = start(ALL)
    assert draw.draw(plan, tmp_path, [one.url]).drawn == 12
    data = plan.read_text()
    assert draw.draw(plan, tmp_path, [one.url]).drawn == 0
    assert plan.read_text() == data
    assert not (tmp_path / "photos").exists()


def test_copied_photos_may_change_places(plan: Path, start: Any, tmp_path: Path) -> None:
    one, out = start(ALL), tmp_path / "out"
    person = {"photos": ["anna.jpg", "bert.jpg"], "noun": "person"}
    change(plan, people={"anna": person})
    draw.draw(plan, out, [one.url])
    kept = [f"out/photos/anna/{n}.jpg" for n in (1, 0)]
    change(plan, people={"anna": {**person, "photos": kept}})
    draw.draw(plan, out, [one.url])
    found = read_plan(out / "plan.json").people["anna"].photos
    assert [photo.read_bytes() for photo in found] == [b"bert", b"anna"]


def test_a_person_may_be_renamed(plan: Path, start: Any, tmp_path: Path) -> None:
    one, out = start(ALL), tmp_path / "out"
    draw.draw(plan, out, [one.url])
    people = json.loads(plan.read_text())["people"]
    change(plan, people={"anne": people["anna"], "bert": people["bert"]})
    assert draw.draw(plan, out, [one.url]).drawn == 6
    material = read_material(out)
    assert len(material.pictures) == 12
    assert {path.parts[-3] for path in material.surplus} == {"anna"}


@pytest.mark.parametrize("which", ["upload_status", "view_status"])
@pytest.mark.parametrize("status", [404, 413, 500])
def test_a_server_that_refuses_is_not_asked_for_ever(
    plan: Path, start: Any, tmp_path: Path, which: str, status: int
) -> None:
    one = start(ALL)
    setattr(one, which, status)
    change(plan, seeds=[0], prompts={"a": "x"})
    outcome = draw.draw(plan, tmp_path / "out", [one.url + "/", one.url])
    assert [f"HTTP {status}" in reason for reason in outcome.failed.values()] == [True, True]


def test_an_interruption_on_the_server_is_told(plan: Path, start: Any, tmp_path: Path) -> None:
    change(plan, seeds=[0], prompts={"a": "stop"})
    outcome = draw.draw(plan, tmp_path / "out", [start(ALL).url])
    assert set(outcome.failed.values()) == {"Somebody interrupted it on the server."}


def test_an_address_without_http_is_refused(plan: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--server 127\.0\.0\.1:8188: expected an address"):
        draw.draw(plan, tmp_path / "out", ["127.0.0.1:8188"])


def test_names_in_braces_are_filled_in_once() -> None:
    values = {"prompt": "a {seed} of {what}", "seed": 3, "person": "{prompt}"}
    given = {"Prompt.text": "{person}: {prompt} {seed} {other}", "SaveImage.seed": "{seed}"}
    filled = fill(WORKFLOW, given, values)
    assert filled["2"]["inputs"]["text"] == "{prompt}: a {seed} of {what} 3 {other}"
    assert filled["3"]["inputs"]["seed"] == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seeds": []}, "has no seeds"),
        ({"people": {"../x": {"photos": ["a"], "noun": "b"}}}, "cannot be a folder's"),
        ({"prompts": {"a/b": "c"}}, "cannot be a folder's"),
        ({"people": {"x": {"photos": [], "noun": "b"}}}, "no photo of 'x'"),
        ({"people": {"x": {"noun": "b"}}}, "KeyError: 'photos'"),
        ({"prompts": "none"}, "no prompts 'none'; there are forty, paper"),
        ({"more": 1}, "unknown key 'more'"),
        ({"seeds": [0, 1, 0]}, "names a seed twice"),
        ({"seeds": "012"}, "'012' is no list"),
        ({"seeds": [1.5]}, "the seed 1.5 is no whole number"),
        ({"seeds": [-1]}, "the seed -1 is no whole number from 0 on"),
        ({"people": {"x": {"photos": "anna.jpg", "noun": "b"}}}, "'anna.jpg' is no list"),
        ({"people": {"x": {"photos": ["gone.jpg"], "noun": "b"}}}, "There is no photo .*gone.jpg"),
        (
            {"methods": {"m": {"workflow": "flow.json", "inputs": {"Prompt.text": "{prompt}"}}}},
            "Method 'm' would draw the same for all seeds",
        ),
        ({"methods": {"m": {"workflow": "flow.json", "inputs": {"X.y": 1}}}}, "no input 'X.y'"),
        ({"methods": {"m": {"workflow": "gone.json", "inputs": {}}}}, "gone.json cannot be read"),
        ({"methods": {"m": {"workflow": "plan.json", "inputs": {}}}}, "choose Workflow, Export"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_mistakes_in_a_plan_are_explained(plan: Path, values: dict[str, Any], words: str) -> None:
    change(plan, **values)
    with pytest.raises(UserError, match=words):
        draw.draw(plan, plan.parent / "out", ["http://127.0.0.1:1"])
    assert not list((plan.parent / "out").rglob("*.png"))


def test_what_is_shipped() -> None:
    for path in SHIPPED.glob("*.json"):
        prompts = shipped_prompts(path.stem)
        assert all("{noun}" in text for text in prompts.values())
        assert len(set(prompts.values())) == len(prompts)
    kinds = [name.split()[0] for name in shipped_prompts("forty")]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("accessory", "style", "context", "action"), 10
    )


def test_the_shipped_workflow_is_the_first_template() -> None:
    """As `gallery.workflow` makes it of `workflows/photo.json`, with titles."""
    from pack.gallery.workflow import read, to_prompt, workflow_file

    path = SHIPPED.with_name("workflows") / "infinite-id.json"
    shipped = read_workflow(path)
    expected = to_prompt(read(workflow_file("photo"), {}))
    assert {n: {k: v for k, v in x.items() if k != "_meta"} for n, x in shipped.items()} == expected
    inputs = {"LoadImage.image": "{photo}", "Prompt.text": "{prompt}", "KSampler.seed": "{seed}"}
    filled = fill(shipped, inputs, {"photo": "p.jpg", "prompt": "x", "seed": 3})
    changed = {
        (filled[n]["class_type"], k): v
        for n in filled
        for k, v in filled[n]["inputs"].items()
        if v != shipped[n]["inputs"][k]
    }
    assert changed == {
        ("LoadImage", "image"): "p.jpg",
        ("CLIPTextEncode", "text"): "x",
        ("KSampler", "seed"): 3,
    }
    assert "InfiniteIDApply" in list_classes(shipped)


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_workflows_differ_by_the_method_alone(path: Path) -> None:
    """The same prompts, latent and sampling as ours; every wire leads to a node that is there."""
    inputs = {"LoadImage.image": "{photo}", "Prompt.text": "{prompt}", "KSampler.seed": "{seed}"}
    filled = fill(read_workflow(path), inputs, {"photo": "p.jpg", "prompt": "x", "seed": 3})
    ours = fill(read_workflow(WORKFLOWS / "infinite-id.json"), inputs, {"seed": 3, "prompt": "x"})

    def settings(prompt: Any, kind: str) -> list[dict[str, Any]]:
        nodes = [node["inputs"] for node in prompt.values() if node["class_type"] == kind]
        return [{k: v for k, v in n.items() if not isinstance(v, list)} for n in nodes]

    for kind in ("CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage", "KSampler"):
        assert settings(filled, kind) == settings(ours, kind)
    wires = [v for n in filled.values() for v in n["inputs"].values() if isinstance(v, list)]
    assert {node for node, _ in wires} < filled.keys()
    assert "p.jpg" in json.dumps(filled)

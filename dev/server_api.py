"""Calls a running ComfyUI server by its HTTP and websocket API. Runs inside the environment."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

Prompt = dict[str, dict[str, Any]]
Report = Callable[[str, dict[str, Any]], None]
T = TypeVar("T")


class ServerError(Exception):
    """The server did not do what it should; the message ends with the end of its log."""

    def __init__(self, message: str, log: Path) -> None:
        tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
        super().__init__(f"{message}\n--- end of {log} ---\n{tail}")


@dataclass(frozen=True)
class NodeError:
    """One error of the server: about a node's input before the run, or raised in the run."""

    node: str
    kind: str
    message: str
    details: str


@dataclass
class Run:
    """The outcome of a queued prompt."""

    prompt_id: str = ""
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: list[NodeError] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    cached: list[str] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    """A server: its address, base directory, log and process, and requests to it."""

    url: str
    base: Path
    log: Path
    pid: int

    def answers(self) -> bool:
        """Whether the server takes requests yet."""
        try:
            self.get("/system_stats")
        except aiohttp.ClientError:
            return False
        return True

    def get(self, path: str) -> Any:
        """Return the JSON at a path of the API. Raises aiohttp.ClientError when there is none."""
        return _run(_get(self.url + path))

    def post(self, path: str, **body: Any) -> None:
        """Post JSON to a path of the API. Raises aiohttp.ClientError when it is refused."""
        _run(_post(self.url + path, body))

    def object_info(self, node: str = "") -> dict[str, Any]:
        """Return the description of one node type, or of all. Raises aiohttp.ClientError."""
        info: dict[str, Any] = self.get(f"/object_info/{node}" if node else "/object_info")
        return info

    def upload(self, image: Path, name: str | None = None) -> str:
        """Put a picture into the server's input folder and return the name for LoadImage.

        Raises aiohttp.ClientError when the server refuses it.
        """
        return _run(_upload(self.url, image, name or image.name))

    def files(self, run: Run, node: str, kind: str = "images") -> list[Path]:
        """Return the files that a node of that run saved or previewed."""
        entries = run.outputs[node][kind]
        return [self.base / e["type"] / e["subfolder"] / e["filename"] for e in entries]

    def queue(self, prompt: Prompt, timeout: float = 1800.0, report: Report | None = None) -> Run:
        """Queue a prompt in API form and follow it to its end.

        Errors of the server or of a node are in the result's `errors`. `report` gets the type and
        data of each websocket message.
        Raises ServerError when the server goes away, and TimeoutError after `timeout` seconds.
        """
        try:
            return _run(asyncio.wait_for(_follow(self.url, prompt, report), timeout))
        except aiohttp.ClientError as error:
            raise ServerError(f"The server went away: {error}", self.log) from error


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in another thread, as a browser's driver keeps an event loop in this one."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


async def _get(url: str) -> Any:
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.get(url) as response,
    ):
        return await response.json()


async def _post(url: str, body: dict[str, Any]) -> None:
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        await session.post(url, json=body)


async def _upload(url: str, image: Path, name: str) -> str:
    form = aiohttp.FormData({"overwrite": "true"}, quote_fields=False)
    form.add_field("image", image.read_bytes(), filename=name)
    address = f"{url}/upload/image"
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        response = await session.post(address, data=form)
        return str((await response.json())["name"])


async def _follow(url: str, prompt: Prompt, report: Report | None) -> Run:
    client = uuid.uuid4().hex
    async with aiohttp.ClientSession(base_url=url) as session:
        async with session.ws_connect(f"/ws?clientId={client}", max_msg_size=0) as socket:
            body = {"prompt": prompt, "client_id": client}
            async with session.post("/prompt", json=body) as response:
                answer = await response.json()
            run = Run(answer.get("prompt_id", ""), errors=_refusals(answer))
            if run.prompt_id:
                await _listen(socket, run, report)
        if run.prompt_id:
            async with session.get(f"/history/{run.prompt_id}") as response:
                run.outputs = (await response.json())[run.prompt_id]["outputs"]
    return run


def _refusals(answer: dict[str, Any]) -> list[NodeError]:
    """Return the errors of validation; without any node, the error of the prompt as a whole."""
    found = [
        NodeError(node, error["type"], error["message"], error["details"])
        for node, report in (answer.get("node_errors") or {}).items()
        for error in report["errors"]
    ]
    whole = answer.get("error")
    if whole and not found:
        node = (whole.get("extra_info") or {}).get("node_id", "")
        found.append(NodeError(str(node or ""), whole["type"], whole["message"], whole["details"]))
    return found


async def _listen(socket: aiohttp.ClientWebSocketResponse, run: Run, report: Report | None) -> None:
    clock = _Clock(run.seconds)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.BINARY:
            run.previews.append(message.data)
            continue
        event = json.loads(message.data)
        data = event.get("data") or {}
        if data.get("prompt_id", run.prompt_id) != run.prompt_id:
            continue
        if report:
            report(event["type"], data)
        _note(run, clock, event["type"], data)
        # Sent last, when the history has the run; the events of success and of errors come before.
        if event["type"] == "executing" and data["node"] is None:
            return
    raise aiohttp.ClientConnectionError("it closed the websocket")


def _note(run: Run, clock: _Clock, event: str, data: dict[str, Any]) -> None:
    if event == "executing":
        clock.turn(data["node"])
    elif event == "execution_cached":
        run.cached += data["nodes"]
    elif event == "execution_error":
        run.errors.append(
            NodeError(
                data["node_id"],
                data["exception_type"],
                data["exception_message"].strip(),
                "".join(data["traceback"]),
            )
        )


class _Clock:
    """Adds up how long each node ran."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.node: str | None = None
        self.since = time.perf_counter()

    def turn(self, node: str | None) -> None:
        """Note that from now on this node runs."""
        now = time.perf_counter()
        if self.node is not None:
            self.seconds[self.node] = self.seconds.get(self.node, 0.0) + now - self.since
        self.node, self.since = node, now

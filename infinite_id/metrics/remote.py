"""A ComfyUI server as `draw` uses it: photos in, pictures out."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .workflow import Prompt

if TYPE_CHECKING:
    import aiohttp

POLL_SECONDS = 0.5
_ANSWER_SECONDS = 60.0
_AWAY = (502, 503, 504)
"""HTTP statuses with which a proxy answers while the server behind it is away."""


class DrawError(Exception):
    """The server refused a workflow, or a node failed; the message says which and why."""


class Server:
    """One server. Every method raises aiohttp.ClientError or asyncio.TimeoutError if it is gone."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url.rstrip("/")
        self._session = session
        self._uploaded: dict[Path, str] = {}

    async def classes(self) -> set[str]:
        """The node classes that are installed. Photos count as not uploaded from then on."""
        self._uploaded.clear()
        return set(await self._get("/object_info"))

    async def upload(self, photo: Path) -> str:
        """Put a photo into the input folder, once; return its name there.

        Raises:
            DrawError: if it cannot be read, or the server does not take it.
        """
        import aiohttp

        if photo not in self._uploaded:
            try:
                data = photo.read_bytes()
            except OSError as error:
                raise DrawError(f"The photo {photo} cannot be read ({error.strerror}).") from error
            name = f"{sha256(data).hexdigest()[:16]}{photo.suffix}"
            form = aiohttp.FormData({"overwrite": "true"}, quote_fields=False)
            form.add_field("image", data, filename=name)
            answer = await self._post("/upload/image", data=form)
            self._uploaded[photo] = str(answer["name"])
        return self._uploaded[photo]

    async def draw(self, prompt: Prompt) -> bytes:
        """Run a workflow and return the first picture that it saves.

        Raises:
            DrawError: if there is none.
        """
        answer = await self._post("/prompt", json={"prompt": prompt})
        if "prompt_id" not in answer:
            raise DrawError(_refusal(answer))
        entry = await self._wait(str(answer["prompt_id"]))
        for event, data in entry["status"]["messages"]:
            if event == "execution_error":
                raise DrawError(f"{data['node_type']}: {data['exception_message'].strip()}")
            if event == "execution_interrupted":
                raise DrawError("Somebody interrupted it on the server.")
        images = [x for output in entry["outputs"].values() for x in output.get("images", ())]
        saved = [image for image in images if image["type"] == "output"]
        if not saved:
            raise DrawError("The workflow saved no picture. It needs a Save Image node.")
        where = {key: saved[0][key] for key in ("filename", "subfolder", "type")}
        async with self._session.get(f"{self.url}/view", params=where) as response:
            _check(response)
            return await response.read()

    async def _wait(self, number: str) -> dict[str, Any]:
        """Wait until a prompt has ended, however long that takes, and return its history."""
        import aiohttp

        while True:
            queue = await self._get("/queue")
            history = await self._get(f"/history/{number}")
            if number in history:
                return dict(history[number])
            waiting = [*queue["queue_running"], *queue["queue_pending"]]
            if not any(entry[1] == number for entry in waiting):
                raise aiohttp.ClientConnectionError("the server was started anew")
            await asyncio.sleep(POLL_SECONDS)

    async def _get(self, path: str) -> Any:
        import aiohttp

        limit = aiohttp.ClientTimeout(_ANSWER_SECONDS)
        async with self._session.get(self.url + path, timeout=limit) as response:
            response.raise_for_status()
            return await response.json()

    async def _post(self, path: str, **body: Any) -> Any:
        import aiohttp

        limit = aiohttp.ClientTimeout(_ANSWER_SECONDS)
        async with self._session.post(self.url + path, timeout=limit, **body) as response:
            if response.content_type != "application/json":
                _check(response)
            return await response.json()


def _check(response: aiohttp.ClientResponse) -> None:
    """Raise DrawError if a server refuses a request: asking it again would be no use."""
    if response.status >= 400 and response.status not in _AWAY:
        raise DrawError(f"{response.url.path}: HTTP {response.status}, {response.reason}")
    response.raise_for_status()


def _refusal(answer: dict[str, Any]) -> str:
    """What the server found wrong with a workflow."""
    found = [
        f"{report['class_type']}: {error['message']} {error['details']}"
        for report in (answer.get("node_errors") or {}).values()
        for error in report["errors"]
    ]
    whole = (answer.get("error") or {}).get("message", "The server refused the workflow.")
    return "; ".join(found) or str(whole)

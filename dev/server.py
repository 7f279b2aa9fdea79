"""Runs a real ComfyUI server with this pack in it. Runs inside the environment.

    with running_server(models={"checkpoints": [path]}) as server:
        server.upload(photo)
        run = server.queue(prompt)

Everything that the server reads and writes is in a fresh base directory.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .cache import ROOT
from .comfyui import host_folder
from .server_api import Server, ServerError

PACK = "ComfyUI-Infinite-ID"
# The files of an installation from the registry.
PACK_CONTENTS = (
    "__init__.py",
    "nodes",
    "infinite_id",
    "subgraphs",
    "workflows",
    "locales",
    "pyproject.toml",
    "requirements",
    "requirements.txt",
)
FOLDERS = ("custom_nodes", "input", "models", "output", "temp", "user")
START_SECONDS = 300.0
# At the first visit the page shows a gallery over everything else.
SETTINGS = {"Comfy.TutorialCompleted": True}


@contextmanager
def running_server(
    base: Path | None = None,
    *,
    models: Mapping[str, Sequence[Path]] | None = None,
    custom_nodes: Sequence[Path] = (),
    arguments: Sequence[str] = (),
) -> Iterator[Server]:
    """Run a ComfyUI server on loopback, and end it with the block.

    `base` is a new or empty folder; without it, a temporary one that is removed at the end.
    `models` maps folders under `models/` to files or folders that go there. `custom_nodes` are
    further packs to install. `arguments` go to ComfyUI's command line.
    Raises ServerError with the end of the log when the server does not come up.
    """
    with _base_folder(base) as folder:
        _install(folder, models or {}, custom_nodes)
        with _running(folder, arguments) as server:
            yield server


def install_pack(folder: Path) -> Path:
    """Copy the pack, as the registry would install it, into a custom_nodes folder."""
    target = folder / PACK
    target.mkdir()
    for name in PACK_CONTENTS:
        if (ROOT / name).exists():
            _copy(ROOT / name, target / name)
    return target


@contextmanager
def _base_folder(base: Path | None) -> Iterator[Path]:
    if base is not None:
        yield base.resolve()
        return
    # Windows may hold the log a moment longer than the server lives.
    with tempfile.TemporaryDirectory(prefix="infinite-id-", ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()


def _install(
    base: Path, models: Mapping[str, Sequence[Path]], custom_nodes: Sequence[Path]
) -> None:
    for name in FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    user = base / "user" / "default"
    user.mkdir(parents=True, exist_ok=True)
    (user / "comfy.settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    install_pack(base / "custom_nodes")
    for source in custom_nodes:
        _copy(source, base / "custom_nodes" / source.name)
    for folder, sources in models.items():
        target = base / "models" / folder
        target.mkdir(parents=True, exist_ok=True)
        for source in sources:
            _link(source, target / source.name)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    else:
        shutil.copy(source, target)


def _link(source: Path, target: Path) -> None:
    """Make hard links, not copies of gigabytes, if the file system allows it."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_file)
    else:
        _link_file(source, target)


def _link_file(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


@contextmanager
def _running(base: Path, arguments: Sequence[str]) -> Iterator[Server]:
    port = _free_port()
    log = base / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(base, port, arguments),
            cwd=base,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        server = Server(f"http://127.0.0.1:{port}", base, log, process.pid)
        _wait(server, process)
        yield server
    finally:
        _end(process)


def _command(base: Path, port: int, arguments: Sequence[str]) -> list[str]:
    main = str(host_folder() / "main.py")
    database = f"sqlite:///{(base / 'user' / 'comfyui.db').as_posix()}"
    folders = ["--base-directory", str(base), "--database-url", database]
    address = ["--listen", "127.0.0.1", "--port", str(port)]
    switches = ["--cpu", "--use-pytorch-cross-attention"]
    quiet = ["--disable-auto-launch", "--disable-api-nodes"]
    return [sys.executable, main, *folders, *address, *switches, *quiet, *arguments]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while not server.answers():
        if process.poll() is not None:
            raise ServerError(f"ComfyUI ended with exit code {process.returncode}", server.log)
        if time.monotonic() > end:
            raise ServerError(f"ComfyUI did not answer in {START_SECONDS:.0f} s", server.log)
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and its child processes, which are its process group."""
    if sys.platform == "win32":
        kill = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
        subprocess.run(kill, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    else:
        with suppress(ProcessLookupError):  # the server and its children have ended already
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()

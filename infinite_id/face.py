"""Faces in photos: detection and recognition by InsightFace, order, alignment, masks.

InsightFace and onnxruntime are imported when first used, so that a missing package hides no node.
Photos are `(height, width, 3)` uint8 arrays in BGR order, as OpenCV and InsightFace have them.
"""

import logging
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .mappers import Crop

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

_ARCFACE = 112
"""The side of ArcFace's aligned crop, in which the oval below is given."""
_OVAL_CENTRE, _OVAL_RADII = np.array([56.0, 60.0]), np.array([42.0, 58.0])
_SHARE = {Crop.LOOSE: 0.65, Crop.ARCFACE: 1.0}
"""The share of a crop's side that the ArcFace crop takes."""

_VIEWS = (1.0, 0.5, 0.25)
"""The shares of the detector's view at which a photo is shown to it."""
_LARGE = 0.25
"""Smaller views are for faces at least so long, of the photo's longer side; larger views find the
others, and what they leave is mostly no face."""
_DOUBT = 0.1
"""How much surer the detector must be in a smaller view to overrule the largest."""
_SAME = 0.6
"""Boxes of two views that share this much of the smaller one are of one face."""
_LARGEST_VIEW = 2048
"""Pixels: no detector looks at more."""


class Order(Enum):
    """How the faces of a photo are counted."""

    LARGEST = "largest"
    LEFT_TO_RIGHT = "left to right"
    MOST_SIMILAR = "most similar to reference"


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
    embedding: Vector

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the box in photo pixels."""
        left, top, right, bottom = self.box
        return float(right - left), float(bottom - top)


def list_packs(
    roots: Sequence[Path], note: Callable[[Path, OSError], object] = lambda *_: None
) -> dict[str, Path]:
    """InsightFace model packs below the roots: name -> the folder that holds its .onnx files.

    A pack is looked for in `<root>/models/<name>` and `<root>/<name>`; one that was unpacked into
    a folder of its own name (`antelopev2/antelopev2`) is found too. `note` is told of each folder
    that cannot be read.
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


def detect(analysis: Any, photo: Photo, min_confidence: float = MIN_CONFIDENCE) -> list[Face]:
    """Find the faces in a photo, largest first; an empty list if there are none.

    Of a face that fills its view a detector sees nothing, or takes a part for the whole. So the
    photo is shown in smaller views as well, as if the detection size were smaller, and of finds
    that overlap the surest is kept; large finds in a smaller view count where it is clearly surer.

    Args:
        analysis: an `insightface.app.FaceAnalysis`; it is left as it is.
        min_confidence: the least detection score, 0..1.

    Raises:
        FaceError: if the analysis was loaded without a recogniser.
    """
    if "recognition" not in analysis.models:
        raise FaceError(
            "This face analysis was loaded without a recogniser. Use Load Face Analysis, or a "
            "loader that loads the whole model pack."
        )
    detector = copy(analysis.det_model)
    detector.det_thresh = min_confidence
    finds = [find for share in _VIEWS for find in _look(detector, photo, share)]
    faces = [_recognise(analysis, photo, find) for find in _drop_doubles(finds)]
    return sorted(faces, key=lambda face: face.size[0] * face.size[1], reverse=True)


@dataclass(frozen=True, eq=False)
class _Find:
    """What a detector found: box `(4,)`, landmarks `(5, 2)`, and in which view of the photo."""

    box: NDArray[np.float32]
    landmarks: Points
    score: float
    share: float


def _look(detector: Any, photo: Photo, share: float) -> list[_Find]:
    """Detect in a photo that takes a share of the detector's view, black below and to the right."""
    import cv2

    view: Any = photo
    longest, zoom = max(photo.shape[:2]), 1.0
    if share < 1:
        zoom = min(1.0, share * _LARGEST_VIEW / longest)
        view = cv2.resize(photo, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        border = round(max(view.shape[:2]) * (1 / share - 1))
        view = np.pad(view, ((0, border), (0, border), (0, 0)))
    boxes, landmarks = detector.detect(view)
    finds = [
        _Find(box[:4] / zoom, points / zoom, float(box[4]), share)
        for box, points in zip(boxes, landmarks, strict=True)
    ]
    return [
        find
        for find in finds
        if share == 1 or (find.box[2:] - find.box[:2]).max() > _LARGE * longest
    ]


def _drop_doubles(finds: Sequence[_Find]) -> list[_Find]:
    """Keep one find of each face; within one view the detector has done so itself."""
    kept: list[_Find] = []
    for find in sorted(finds, key=lambda f: f.score - _DOUBT * (f.share < 1), reverse=True):
        others = [other for other in kept if other.share != find.share]
        if all(_overlap(find.box, other.box) < _SAME for other in others):
            kept.append(find)
    return kept


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The share of the smaller box that lies in the other one."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    return float(sides.prod() / min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod()))


def _recognise(analysis: Any, photo: Photo, find: _Find) -> Face:
    from insightface.app.common import Face as Detected

    detected = Detected(bbox=find.box, kps=find.landmarks, det_score=find.score)
    embedding = analysis.models["recognition"].get(photo, detected)
    return Face(find.box, find.landmarks, find.score, np.asarray(embedding, np.float32))


def similarity(a: Vector, b: Vector) -> float:
    """The cosine of two embeddings: 1 is the same photo, 0 nothing in common."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def average_person(faces: Sequence[Face]) -> Vector:
    """The mean direction of the faces' embeddings, `(512,)`: each photo counts alike."""
    unit = [face.embedding / np.linalg.norm(face.embedding) for face in faces]
    return np.mean(unit, axis=0)


def sort_faces(faces: Sequence[Face], order: Order, person: Vector | None = None) -> list[Face]:
    """Faces in the order in which they are counted.

    Args:
        person: an embedding; MOST_SIMILAR needs it, the other orders do not read it.
    """
    if order is Order.LEFT_TO_RIGHT:
        return sorted(faces, key=lambda face: float(face.box[0] + face.box[2]))
    if order is Order.MOST_SIMILAR and person is not None:
        return sorted(faces, key=lambda face: similarity(face.embedding, person), reverse=True)
    return sorted(faces, key=lambda face: face.size[0] * face.size[1], reverse=True)


def crop_for_recogniser(analysis: Any, photo: Photo, face: Face) -> Photo:
    """The very crop that the recogniser saw, mostly `(112, 112, 3)`."""
    from insightface.utils.face_align import norm_crop

    side = analysis.models["recognition"].input_size[0]
    cut: Any = norm_crop(photo, landmark=face.landmarks, image_size=side)
    return cut


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

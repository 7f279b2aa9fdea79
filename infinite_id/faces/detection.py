"""Find the faces in a photo, whichever way up it is.

A detector reads faces that stand upright. It overlooks a face that lies on its side. It often finds
a face that stands on its head, but takes the mouth for the eyes. The vector of such a face is
nobody's. Neither the score nor the landmarks show this mistake, so each doubtful find is checked.
The check cuts out the face by its landmarks and shows it to the detector at four turns. The
detector is surest at the turn in which the face is upright. A check costs little. A photo is
searched at the other turns only if a find is wrong, or if none is right.

Turns are counted as `numpy.rot90` counts them: quarters, against the clock.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import file_digest
from .alignment import align_landmarks
from .face import MIN_CONFIDENCE, Face, FaceError, Photo, Points

_VIEWS = (1.0, 0.5, 0.25)
"""The shares of the detector's view at which a photo is shown to it."""
_LARGE = 0.25
"""The least length of a find in a smaller view, as a share of the photo's longer side. Larger views
find smaller faces; what they leave is mostly no face."""
_DOUBT = 0.1
"""How much surer the detector must be in a smaller view to overrule the largest."""
_SAME = 0.6
"""Boxes of two views that share this much of the smaller one are of one face."""
_LARGEST_VIEW = 2048
"""The longest side of a smaller view in pixels; no detector looks at more."""
_SLIMMEST = 64
"""The largest ratio of a photo's sides. No face is seen in a photo with a larger one."""

_SURE = 0.92
"""Finds with at least this score need no check. Upright faces reach .95, upside-down ones .89."""
_CHECK_SIZE, _CHECK_CROP = 160, 80
"""Sides of the detector's view in a check, and of the crop in it, in pixels. At this size upright
faces score at least .91, and others at most .78."""
_UPRIGHT = 0.7
"""The least score at which a turn counts in a check."""
_CLEARLY = 0.05
"""The lead in score by which another turn shows that a face is not upright."""


class _Verdict(Enum):
    """What a check says of a find: its landmarks are right, wrong, or nothing can be told."""

    RIGHT = "right"
    WRONG = "wrong"
    OPEN = "open"


@dataclass(frozen=True, eq=False)
class _Find:
    """What a detector found: box `(4,)` and landmarks `(5, 2)` in the photo as it was given.

    Attributes:
        view: the share of the detector's view, and the turn, at which it was found.
        verdict: what a check said.
    """

    box: NDArray[np.float32]
    landmarks: Points
    score: float
    view: tuple[float, int]
    verdict: _Verdict

    @property
    def share(self) -> float:
        return self.view[0]

    @property
    def turn(self) -> int:
        return self.view[1]


def detect(analysis: Any, photo: Photo, min_confidence: float = MIN_CONFIDENCE) -> list[Face]:
    """Find the faces in a photo, largest first; an empty list if there are none.

    If a face fills the view, a detector overlooks it or takes a part for the whole. So the photo is
    shown in smaller views as well, as if the detection size were smaller. If finds overlap, the
    surest is kept. A find in a smaller view replaces one in the largest if it is clearly surer.

    Faces that are not upright are found if no face is upright, or if the detector mistook one.
    Their boxes and landmarks are in pixels of the photo as it was given.

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
    if max(photo.shape[:2]) > _SLIMMEST * min(photo.shape[:2]):
        return []
    detector = copy(analysis.det_model)
    detector.det_thresh = min_confidence
    faces = [_recognise(analysis, photo, find) for find in _find(detector, photo)]
    return sorted(faces, key=lambda face: face.size[0] * face.size[1], reverse=True)


def describe_finder(analysis: Any) -> str:
    """Return the detector's file name, a digest of the file, and the detection size."""
    file = Path(analysis.models["detection"].model_file)
    return f"{file.name} {file_digest(file)[:16]} {analysis.det_size}"


def _find(detector: Any, photo: Photo) -> list[_Find]:
    finds = _search(detector, photo, 0)
    verdicts = {find.verdict for find in finds}
    if _Verdict.RIGHT in verdicts and _Verdict.WRONG not in verdicts:
        return finds
    finds += [find for turn in (1, 2, 3) for find in _search(detector, photo, turn)]
    right = [find for find in finds if find.verdict is _Verdict.RIGHT]
    # A find without a verdict, such as a drawn face, is taken to stand as the surest face does.
    main = max(right, key=lambda find: find.score).turn if right else 0
    doubtful = [f for f in finds if f.verdict is _Verdict.OPEN and f.turn == main]
    return _drop_doubles(right) + [
        find for find in doubtful if not any(_is_same(find, other) for other in right)
    ]


def _search(detector: Any, photo: Photo, turn: int) -> list[_Find]:
    """Turn a photo, find faces in it, check them, and turn the finds back."""
    turned = np.ascontiguousarray(np.rot90(photo, turn))
    finds = [find for share in _VIEWS for find in _look(detector, turned, share, turn)]
    checked = [_check(detector, turned, find) for find in _drop_doubles(finds)]
    return [_turn_back(find, photo.shape[:2]) for find in checked]


def _look(detector: Any, photo: Photo, share: float, turn: int) -> list[_Find]:
    """Detect in a view of which the photo takes a share. The rest, below and right, is black."""
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
        _Find(box[:4] / zoom, points / zoom, float(box[4]), (share, turn), _Verdict.OPEN)
        for box, points in zip(boxes, landmarks, strict=True)
    ]
    return [
        find
        for find in finds
        if share == 1 or (find.box[2:] - find.box[:2]).max() > _LARGE * longest
    ]


def _drop_doubles(finds: Sequence[_Find]) -> list[_Find]:
    """Keep one find of each face. Within one view the detector has already done so."""
    kept: list[_Find] = []
    for find in sorted(finds, key=lambda f: f.score - _DOUBT * (f.share < 1), reverse=True):
        if not any(_is_same(find, other) for other in kept if other.view != find.view):
            kept.append(find)
    return kept


def _is_same(a: _Find, b: _Find) -> bool:
    """Whether two finds are of one face: by the share of the smaller box in the other one."""
    near, far = np.maximum(a.box[:2], b.box[:2]), np.minimum(a.box[2:], b.box[2:])
    shared = (far - near).clip(0).prod()
    areas = [(find.box[2:] - find.box[:2]).prod() for find in (a, b)]
    return bool(shared >= _SAME * min(areas))


def _check(detector: Any, photo: Photo, find: _Find) -> _Find:
    verdict = _Verdict.RIGHT
    if find.score < _SURE:
        crop = align_landmarks(photo, find.landmarks, _CHECK_CROP)
        verdict = _judge([_score(detector, np.rot90(crop, turn)) for turn in range(4)])
    return _Find(find.box, find.landmarks, find.score, find.view, verdict)


def _score(detector: Any, crop: Photo) -> float:
    """Return the detector's score for a crop, whatever detection size was set."""
    border = _CHECK_SIZE - _CHECK_CROP
    view = np.pad(crop, ((0, border), (0, border), (0, 0)))
    boxes, _ = detector.detect(view, input_size=(_CHECK_SIZE, _CHECK_SIZE))
    return float(max((box[4] for box in boxes), default=0))


def _judge(scores: Sequence[float]) -> _Verdict:
    """A verdict on a face from its scores at four turns. The first is upright."""
    upright, other = scores[0], max(scores[1:])
    if other >= _UPRIGHT and other > upright + _CLEARLY:
        return _Verdict.WRONG
    return _Verdict.RIGHT if upright >= _UPRIGHT else _Verdict.OPEN


def _turn_back(find: _Find, size: tuple[int, int]) -> _Find:
    """Map a find in the turned photo to the photo as it was given, of `size` (height, width)."""
    corners = _turn_points_back(find.box.reshape(2, 2), find.turn, size)
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    landmarks = _turn_points_back(find.landmarks, find.turn, size)
    return _Find(box, landmarks, find.score, find.view, find.verdict)


def _turn_points_back(points: Points, turn: int, size: tuple[int, int]) -> Points:
    """Map pixels `(n, 2)`, x and y, of `rot90(photo, turn)` to pixels of the photo."""
    x, y = points.T
    bottom, right = (np.float32(length - 1) for length in size)
    return np.stack([(x, y), (right - y, x), (right - x, bottom - y), (y, bottom - x)][turn], 1)


def _recognise(analysis: Any, photo: Photo, find: _Find) -> Face:
    from insightface.app.common import Face as Detected

    detected = Detected(bbox=find.box, kps=find.landmarks, det_score=find.score)
    embedding = analysis.models["recognition"].get(photo, detected)
    return Face(find.box, find.landmarks, find.score, np.asarray(embedding, np.float32))

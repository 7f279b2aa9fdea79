"""Find the faces in a photo, whichever way up it is.

A detector reads faces that stand upright. One that lies on its side it overlooks. In one that
stands on its head it often sees a face all the same, the mouth for the eyes, and a vector cut out
by such landmarks is nobody's. Neither the score nor the landmarks betray this, but the face itself
does: cut out by its landmarks and shown to the detector at four turns, it is surest of the turn
in which the face is upright. So each find that is not sure is checked in this way, which costs
little; only a photo in which a find fails, or none stands, is searched at the other turns.

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
"""Smaller views are for faces at least so long, of the photo's longer side; larger views find the
others, and what they leave is mostly no face."""
_DOUBT = 0.1
"""How much surer the detector must be in a smaller view to overrule the largest."""
_SAME = 0.6
"""Boxes of two views that share this much of the smaller one are of one face."""
_LARGEST_VIEW = 2048
"""Pixels: no detector looks at more."""
_SLIMMEST = 64
"""No face is seen in a photo that is so many times as long as wide."""

_SURE = 0.92
"""Scores from here on need no check. Upright faces reach .95, those on their heads .89."""
_CHECK_SIZE, _CHECK_CROP = 160, 80
"""Pixels of the detector's view in a check, and of the crop in it: there only upright faces count,
from .91 on where others reach .78."""
_UPRIGHT = 0.7
"""The least score of a check that says anything."""
_CLEARLY = 0.05
"""How much surer of another turn the detector must be to say that a face is not upright."""


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

    Of a face that fills its view a detector sees nothing, or takes a part for the whole. So the
    photo is shown in smaller views as well, as if the detection size were smaller, and of finds
    that overlap the surest is kept; large finds in a smaller view count where it is clearly surer.

    Faces that do not stand upright are found if none does, or if the detector mistook one; their
    boxes and landmarks are in the photo as it was given.

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
    """Which net finds faces and at which size, with a digest that tells it from others."""
    file = Path(analysis.models["detection"].model_file)
    return f"{file.name} {file_digest(file)[:16]} {analysis.det_size}"


def _find(detector: Any, photo: Photo) -> list[_Find]:
    finds = _search(detector, photo, 0)
    verdicts = {find.verdict for find in finds}
    if _Verdict.RIGHT in verdicts and _Verdict.WRONG not in verdicts:
        return finds
    finds += [find for turn in (1, 2, 3) for find in _search(detector, photo, turn)]
    right = [find for find in finds if find.verdict is _Verdict.RIGHT]
    # What no check can tell, such as a drawn or a covered face, stands as the surest face does.
    main = max(right, key=lambda find: find.score).turn if right else 0
    doubtful = [f for f in finds if f.verdict is _Verdict.OPEN and f.turn == main]
    return _drop_doubles(right) + [
        find for find in doubtful if not any(_is_same(find, other) for other in right)
    ]


def _search(detector: Any, photo: Photo, turn: int) -> list[_Find]:
    """The finds in a photo that is turned first, checked, and turned back."""
    turned = np.ascontiguousarray(np.rot90(photo, turn))
    finds = [find for share in _VIEWS for find in _look(detector, turned, share, turn)]
    checked = [_check(detector, turned, find) for find in _drop_doubles(finds)]
    return [_turn_back(find, photo.shape[:2]) for find in checked]


def _look(detector: Any, photo: Photo, share: float, turn: int) -> list[_Find]:
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
        _Find(box[:4] / zoom, points / zoom, float(box[4]), (share, turn), _Verdict.OPEN)
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
    """How sure a detector is of the face in a crop, however small its size was set."""
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
    """A find in the turned photo -> in the photo of `size` (height and width) as it was given."""
    corners = _turn_points_back(find.box.reshape(2, 2), find.turn, size)
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    landmarks = _turn_points_back(find.landmarks, find.turn, size)
    return _Find(box, landmarks, find.score, find.view, find.verdict)


def _turn_points_back(points: Points, turn: int, size: tuple[int, int]) -> Points:
    """Pixels `(n, 2)`, x and y, of `rot90(photo, turn)` -> those of the photo."""
    x, y = points.T
    bottom, right = (np.float32(length - 1) for length in size)
    return np.stack([(x, y), (right - y, x), (right - x, bottom - y), (y, bottom - x)][turn], 1)


def _recognise(analysis: Any, photo: Photo, find: _Find) -> Face:
    from insightface.app.common import Face as Detected

    detected = Detected(bbox=find.box, kps=find.landmarks, det_score=find.score)
    embedding = analysis.models["recognition"].get(photo, detected)
    return Face(find.box, find.landmarks, find.score, np.asarray(embedding, np.float32))

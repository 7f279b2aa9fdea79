"""One photo at a time: decoding within limits, and whether it shows one sharp, large face."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adapters.mappers import Crop
from ..faces.alignment import align
from ..faces.detection import detect
from ..faces.face import Face, FaceError, Photo
from .sources import Box, Source

_THUMBNAIL = 64
_VECTOR = 512
"""Numbers of an InsightFace recogniser's vector."""
_DEEPEST = 2**16 - 1
"""The lightest grey level of a picture of more than 8 bits."""
_JUDGED = 112
"""The side of the aligned crop on which sharpness is measured: what the recogniser sees."""


@dataclass(frozen=True)
class Limits:
    """Which photos are used. The words in `prepare --help` explain each.

    Attributes:
        face: the least short side of the face's box, in pixels.
        sharpness: the least variance of the Laplacian of the aligned 112 pixel crop, in grey levels
            squared.
        confidence: the least detection score of a face, 0..1.
        megabytes: the largest file.
        megapixels: the largest picture; looked up in its header, before it is decoded.
    """

    face: float = 112.0
    sharpness: float = 25.0
    confidence: float = 0.5
    megabytes: float = 100.0
    megapixels: float = 100.0


class Rejected(Exception):  # noqa: N818  # an outcome, not an error
    """A photo that is not used: `kind` for counting, the text for the user."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen in a photo.

    Attributes:
        record: plain JSON values for the lists; `reason` is empty if the photo is usable.
        vector: `(512,)` float32, as the recogniser gives it; zeros if no single face was found.
        landmarks: `(5, 2)` float32, pixels.
        box: `(4,)` float32, pixels.
        thumbnail: `(64, 64, 3)` uint8 RGB: the face, or the photo if no single face was found.
    """

    record: dict[str, Any]
    vector: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    box: NDArray[np.float32]
    thumbnail: NDArray[np.uint8]


def look(source: Source, analysis: Any, limits: Limits) -> Look:
    """Decode a photo, find its face and judge it. Never raises for what a file may hold."""
    record: dict[str, Any] = {
        "person": source.person,
        "name": source.name,
        "caption": source.caption,
        "kind": "",
        "reason": "",
    }
    vector, landmarks = np.zeros(_VECTOR, np.float32), np.zeros((5, 2), np.float32)
    box, thumbnail = np.zeros(4, np.float32), np.zeros((_THUMBNAIL, _THUMBNAIL, 3), np.uint8)
    try:
        data = read(source, limits)
        record["digest"] = hashlib.sha256(data).hexdigest()
        photo = decode(data, limits)
        record["height"], record["width"] = photo.shape[:2]
        thumbnail = _shrink(photo)
        face = find(photo, analysis, limits, source.box)
        vector, landmarks, box = face.embedding, face.landmarks, face.box
        thumbnail = align(photo, face, _THUMBNAIL)[..., ::-1].copy()
        record |= measure(photo, face)
        judge(record, limits)
    except Rejected as rejected:
        record |= {"kind": rejected.kind, "reason": str(rejected)}
    return Look(
        record,
        np.asarray(vector, np.float32),
        np.asarray(landmarks, np.float32),
        np.asarray(box, np.float32),
        thumbnail,
    )


def read(source: Source, limits: Limits) -> bytes:
    """The photo's bytes. Raises Rejected if they are too many or cannot be had."""
    if source.size > limits.megabytes * 1e6:
        raise Rejected("too large", f"the file has {source.size / 1e6:.0f} MB")
    try:
        return source.read()
    except OSError as error:
        raise Rejected("unreadable", f"the file cannot be read: {error.strerror}") from error


def decode(data: bytes, limits: Limits) -> Photo:
    """Pixels, upright as the camera noted. Raises Rejected for damaged and for huge pictures.

    Transparent pixels become white, as in the nodes.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            megapixels = picture.width * picture.height / 1e6
            if megapixels > limits.megapixels:
                size = f"{picture.width}x{picture.height}"
                raise Rejected("too large", f"the picture has {size} pixels")
            rgb = _read_colours(ImageOps.exif_transpose(picture))
    except Rejected:
        raise
    except Image.DecompressionBombError as error:
        raise Rejected("too large", "the picture has too many pixels") from error
    except UnidentifiedImageError as error:  # its text names an address in memory
        raise Rejected("unreadable", "it is damaged or no picture") from error
    except Exception as error:  # decoders fail in any way they like
        raise Rejected("unreadable", f"it is damaged ({error})"[:300]) from error
    return np.ascontiguousarray(rgb[..., ::-1])


def _read_colours(picture: Any) -> NDArray[np.uint8]:
    """Return `(h, w, 3)` RGB of a Pillow image. Deep greys are scaled; Pillow would clip them."""
    from PIL import Image

    if picture.mode == "F":
        raise Rejected("unreadable", "its pixels are floating-point numbers: save it as PNG")
    if picture.mode.startswith("I"):
        levels = np.asarray(picture).astype(np.int64)
        if levels.min() < 0 or levels.max() > _DEEPEST:
            raise Rejected("unreadable", "its grey levels have more than 16 bits: save it as PNG")
        grey = (levels * 255 / _DEEPEST).round().astype(np.uint8)
        return np.stack([grey] * 3, axis=-1)
    if picture.getbands()[-1] in ("A", "a") or "transparency" in picture.info:
        colours = picture.convert("RGBA")
        paper = Image.new("RGBA", colours.size, "white")
        picture = Image.alpha_composite(paper, colours)
    return np.asarray(picture.convert("RGB"))


def find(photo: Photo, analysis: Any, limits: Limits, box: Box | None) -> Face:
    """Return the only face, or the one at `box`. Raise Rejected if there is none, or several."""
    try:
        faces = detect(analysis, photo, limits.confidence)
    except FaceError:
        raise
    except Exception as error:  # a picture of a few pixels, or one that a net cannot take
        raise Rejected("no face", f"the detector cannot read it ({error})"[:300]) from error
    if box is not None:
        faces = _at(faces, box)
    if not faces:
        raise Rejected("no face", "no face was found" + (" in bbox" if box else ""))
    if len(faces) > 1:
        raise Rejected("several faces", f"it shows {len(faces)} faces, and must show one")
    if faces[0].attitude:
        raise Rejected("not upright", f"the face is {faces[0].attitude}: turn the photo")
    return faces[0]


def _at(faces: Sequence[Face], box: Box) -> list[Face]:
    """Return the face with the largest part inside the box, if that is more than half of it."""

    def inside(face: Face) -> float:
        left, top, right, bottom = face.box
        width = min(right, box[2]) - max(left, box[0])
        height = min(bottom, box[3]) - max(top, box[1])
        return float(max(width, 0) * max(height, 0) / ((right - left) * (bottom - top)))

    best = max(faces, key=inside, default=None)
    return [best] if best is not None and inside(best) > 0.5 else []


def measure(photo: Photo, face: Face) -> dict[str, Any]:
    """Return the numbers by which `judge` and the search for doubles decide, rounded."""
    import cv2

    crop: Any = align(photo, face, _JUDGED, Crop.ARCFACE)
    grey: Any = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    laplacian: Any = cv2.Laplacian(grey, cv2.CV_64F)
    return {
        "face": round(min(face.size), 1),
        "sharpness": round(float(laplacian.var()), 1),
        "confidence": round(face.score, 3),
        "picture": _difference_hash(photo),
    }


def judge(record: dict[str, Any], limits: Limits) -> None:
    """Raises Rejected if the face is too small or blurred."""
    if record["face"] < limits.face:
        size = f"{record['face']:.0f} pixels"
        raise Rejected("small face", f"the face is {size} wide, less than {limits.face:.0f}")
    if record["sharpness"] < limits.sharpness:
        sharpness = f"{record['sharpness']:.0f}"
        raise Rejected(
            "blurred", f"the face's sharpness is {sharpness}, less than {limits.sharpness:.0f}"
        )


def _difference_hash(photo: Photo) -> str:
    """Sixty-four bits, hexadecimal: whether each of 8x8 places is brighter than its neighbour."""
    import cv2

    grey: Any = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    small: Any = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = (small[:, 1:].astype(int) > small[:, :-1]).flatten()
    return np.packbits(bits).tobytes().hex()


def _shrink(photo: Photo) -> NDArray[np.uint8]:
    import cv2

    small: Any = cv2.resize(photo, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return small[..., ::-1].copy()

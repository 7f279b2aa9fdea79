"""FaceNet as an ONNX file, dlib's net, and the calibration, on real people."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from pack.dev.orl import orl_photos
from pack.infinite_id.errors import UserError
from pack.infinite_id.metrics import scores
from pack.infinite_id.metrics.calibrate import calibrate, describe
from pack.infinite_id.metrics.faces import DlibNet, FaceNetOnnx, PackNet, pack_licence
from pack.infinite_id.metrics.features import Store

PEOPLE, PHOTOS = ("s1", "s2", "s3"), ("1.pgm", "2.pgm", "3.pgm")


@pytest.fixture(scope="module")
def pack() -> PackNet:
    root = Path(os.environ["INFINITE_ID_FACE_ROOT"])
    return PackNet(root / "models" / "yunet-fr", "CPU", 320)


@pytest.fixture(scope="module")
def photos() -> list[tuple[str, Path]]:
    return [(who, path) for who, path in orl_photos() if who in PEOPLE and path.name in PHOTOS]


def write_net(path: Path, shape: list[Any], axes: list[int]) -> Path:
    """A net that gives the mean of each channel."""
    axis = helper.make_tensor("axes", TensorProto.INT64, [2], axes)
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)
    graph = helper.make_graph(
        [node],
        "means",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [axis],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("shape", "axes"), [(["n", 3, 160, 160], [2, 3]), (["n", 160, 160, 3], [1, 2])]
)
def test_facenet_sees_the_face_in_its_own_scale(
    pack: PackNet, photos: Any, tmp_path: Path, shape: list[Any], axes: list[int]
) -> None:
    """Channels are told apart by a tint; blank pictures have no face."""
    photo = cv2.imread(str(photos[0][1]))
    photo = (photo * np.array([0.5, 0.7, 1.0])).astype(np.uint8)
    net = FaceNetOnnx(write_net(tmp_path / "facenet.onnx", shape, axes), pack, "CPU")
    face = pack.find(photo)
    assert face is not None
    left, top, right, bottom = (max(round(float(edge)), 0) for edge in face.box)
    mean = photo[top:bottom, left:right].mean(axis=(0, 1))[::-1]
    assert net.look(photo) == pytest.approx((mean - 127.5) / 128, abs=0.02)
    assert net.look(np.full((64, 64, 3), 90, np.uint8)) is None
    assert net.look(np.zeros((2, 2, 3), np.uint8)) is None


def test_other_files_are_refused(pack: PackNet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"takes .*112.*Expected \(n, 3, 160, 160\)"):
        FaceNetOnnx(write_net(tmp_path / "a.onnx", ["n", 3, 112, 112], [2, 3]), pack, "CPU")
    (tmp_path / "b.onnx").write_text("no")
    with pytest.raises(UserError, match="is no ONNX file"):
        FaceNetOnnx(tmp_path / "b.onnx", pack, "CPU")


def test_licences(pack: PackNet, tmp_path: Path) -> None:
    assert pack.licence == "MIT License"
    (tmp_path / "buffalo_l").mkdir()
    assert pack_licence(tmp_path / "buffalo_l") == "InsightFace's: non-commercial research only"
    assert pack_licence(tmp_path).startswith("unknown")


def test_the_calibration_is_that_of_the_pairs(pack: PackNet, photos: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "features.sqlite")
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((64, 64, 3), 90, np.uint8))
    found = calibrate([*photos, ("s1", blank), ("s1", tmp_path / "gone.png")], [pack], store)
    store.close()
    assert (found.photos, found.people) == (9, 3)
    gone = f"{tmp_path / 'gone.png'}: the file is missing"
    assert found.problems == [gone, f"{blank}: no face was found"]
    vectors = [pack.look(cv2.imread(str(path))) for _, path in photos]
    unit = np.stack([v / np.linalg.norm(v) for v in vectors if v is not None])
    (one,) = found.distributions
    pairs = [(p + i, p + j) for p in (0, 3, 6) for i, j in ((0, 1), (0, 2), (1, 2))]
    same = [unit[i] @ unit[j] for i, j in pairs]
    assert one.same.tolist() == pytest.approx(same, abs=1e-5)
    assert len(one.different) == 27
    assert one.same.min() > one.different.max()
    assert "| threshold at 1 % false accepts | too few pairs |" in describe(found)


def test_dlib_tells_people_apart(pack: PackNet, photos: Any) -> None:
    """By its authors' own threshold, a distance of .6."""
    net = DlibNet(pack)
    vectors = [net.look(cv2.imread(str(path))) for _, path in photos]
    assert all(v is not None and v.shape == (128,) for v in vectors)
    same, different = scores.same_and_different(
        np.stack([v for v in vectors if v is not None]), [who for who, _ in photos], net.measure
    )
    assert same.min() > 1 - 0.6 > different.max()
    assert net.look(np.full((64, 64, 3), 90, np.uint8)) is None

"""A face parser as a mask source: by a tiny net of BiSeNet's interface, which knows colours."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from pack.infinite_id.faces.face import FaceError
from pack.infinite_id.faces.parser import FaceParser
from pack.nodes import folders
from pack.nodes.learn_staged import LearnStagedIdentity
from pack.tests.host.learners import EMBEDDING, STAGED, make_learn, use_models, use_page
from pack.tests.host.stable_worlds import drawn_analysis, drawn_photo

COLOURS = torch.tensor([*product((0.1, 0.5, 0.9), repeat=3)])[:19]
"""Of the classes: background, skin, l_brow, r_brow, l_eye, r_eye, eye_g, l_ear, r_ear, ear_r, nose,
mouth, u_lip, l_lip, neck, neck_l, cloth, hair, hat."""
FACE, HAIR = {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13}, {17}


def write_parser(
    path: Path, colours: torch.Tensor = COLOURS, side: int | str = 512, channels: int = 3
) -> Path:
    """A net whose class is the nearest colour: a convolution of one pixel, on ImageNet's scale."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    own = colours.double().numpy()
    weight = np.zeros((len(own), channels, 1, 1), np.float32)
    weight[:, :3, 0, 0] = 2 * own * std  # -|x - c|^2 without |x|^2, and x = mean + std * given
    bias = (2 * own @ mean - (own**2).sum(axis=1)).astype(np.float32)
    parts = [
        helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.flatten()),
        helper.make_tensor("b", TensorProto.FLOAT, bias.shape, bias),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, len(own), side, side])
        for name in ("out", "out16")
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["out"]),
            helper.make_node("Neg", ["out"], ["out16"]),
        ],
        "parser",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, side, side])],
        outputs,
        parts,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("side", [512, "s"])
@pytest.mark.parametrize("pixels", [128, 512, 700])
def test_face_and_hair_are_their_classes(tmp_path: Path, side: int | str, pixels: int) -> None:
    """Rows of colours, one for each class, and nothing of their neighbours' but at the borders."""
    rows = (torch.arange(pixels) * 19 // pixels).clamp(max=18)
    headshot = COLOURS[rows].T[:, :, None].expand(3, pixels, pixels).contiguous()
    face, hair = FaceParser(write_parser(tmp_path / "p.onnx", side=side), "CPU").parse(headshot)
    assert face.shape == hair.shape == (1, pixels, pixels)
    for number in range(19):
        own = (rows == number).nonzero().flatten().tolist()
        inside = slice(own[0] + 2, own[-1] - 1)
        for mask, wanted in ((face, FACE), (hair, HAIR)):
            assert (mask[0, inside] == (number in wanted)).all(), number


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"colours": COLOURS[:18]}, "no face parser that this pack reads.*gives .1, 18, 512, 512"),
        ({"channels": 4}, "it takes .1, 4, 512, 512"),
        (None, "cannot be used as a face parser.*Download it again"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, how: Any, message: str) -> None:
    path = tmp_path / "p.onnx"
    path.write_bytes(b"text") if how is None else write_parser(path, **how)
    with pytest.raises(FaceError, match=message):
        FaceParser(path, "CPU")


def test_both_nodes_take_its_masks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vae: Any
) -> None:
    use_page(monkeypatch, tmp_path)
    parser = tmp_path / folders.FACE_PARSERS / "skin.onnx"
    photo = drawn_photo()
    skin = photo[0, 200, 256]
    colours = torch.full((19, 3), 9.0)
    colours[1], colours[0] = skin, 1 - skin
    write_parser(parser, colours)
    small = use_models(tmp_path)
    learns = {
        name: make_learn(method, small, vae) for name, method in (("e", EMBEDDING), ("s", STAGED))
    }
    given = {"steps": 1, "masked": True, "face_parser": "skin.onnx", "images": photo}
    for name, learn in learns.items():
        result = learn(**given, face_analysis=drawn_analysis())
        mask, info = (result[4], result[5]) if name == "e" else (result[4], result[3])
        assert "face mask: by the face parser; hair mask: by the face parser" in info, name
        assert 0.02 < float(mask.mean()) < 0.98
    given["name"] = "other"
    staged, mine = learns["s"], torch.ones(photo.shape[:3])
    info = staged(**given, face_mask=mine, face_analysis=drawn_analysis())[3]
    assert "face mask: yours; hair mask: by the face parser" in info
    with pytest.raises(ValueError, match="A mask or a face parser is given"):
        staged(**{**given, "masked": False})
    colours[1] = 9.0
    before = LearnStagedIdentity.fingerprint_inputs(face_parser="skin.onnx")
    write_parser(parser, colours)
    assert LearnStagedIdentity.fingerprint_inputs(face_parser="skin.onnx") != before
    assert LearnStagedIdentity.fingerprint_inputs(face_parser="[None]") is None
    with pytest.raises(FaceError, match="The face parser sees no face in photo 1"):
        staged(**{**given, "name": "third"})
    inputs = {i.id: i for i in LearnStagedIdentity.define_schema().inputs}
    assert inputs["face_parser"].options == ["[None]", "skin.onnx"]  # type: ignore[attr-defined]

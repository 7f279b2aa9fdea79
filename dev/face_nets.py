"""Gives two face nets the inputs and outputs that insightface's classes expect.

The detector is YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023); the shape
that it is given is SCRFD's (Guo et al., "Sample and Computation Redistribution for Efficient Face
Detection", 2021). Both nets keep their weights: nodes are added in front and behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

STRIDES = (8, 16, 32)


def scrfd_detector(yunet: ModelProto) -> ModelProto:
    """YuNet as a net that insightface's SCRFD class reads, for any multiple of 32 as size.

    SCRFD feeds RGB as (x - 127.5) / 128; YuNet wants BGR as 0..255. SCRFD expects, for strides 8,
    16 and 32: scores, then boxes, then five landmarks, in two anchors per cell.
    """
    nodes = [
        helper.make_node("Gather", ["pixels", "bgr"], ["swapped"], axis=1),
        helper.make_node("Mul", ["swapped", "std"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], ["input"]),
        *yunet.graph.node,
    ]
    for stride in STRIDES:
        nodes += _score_nodes(stride) + _box_nodes(stride) + _landmark_nodes(stride)
    constants: dict[str, ArrayLike] = {
        "bgr": np.array([2, 1, 0]),
        "std": np.float32(128),
        "mean": np.float32(127.5),
        "half": np.float32(0.5),
        "none": np.float32(0),
        "flip": np.array([-1, -1, 1, 1], np.float32),
        **{f"rows_{width}": np.array([-1, width]) for width in (1, 4, 10)},
    }
    pixels = _value("pixels", (1, 3, "height", "width"))
    outputs = [
        _value(f"{kind}_{stride}_anchors", (f"anchors_{stride}", width))
        for kind, width in (("score", 1), ("box", 4), ("kps", 10))
        for stride in STRIDES
    ]
    return _model(yunet, nodes, [pixels], outputs, constants)


def arcface_recogniser(net: ModelProto) -> ModelProto:
    """The recogniser with its own normalisation, (x - 127) / 128 in RGB, as part of the net.

    insightface's ArcFaceONNX feeds plain 0..255 RGB to a net that begins with nodes whose *names*
    start with Sub and Mul; to any other it feeds (x - 127.5) / 127.5.
    """
    nodes = [
        helper.make_node("Sub", ["pixels", "mean"], ["centred"], name="Sub_mean"),
        helper.make_node("Mul", ["centred", "scale"], ["input"], name="Mul_scale"),
        *net.graph.node,
    ]
    constants: dict[str, ArrayLike] = {"mean": np.float32(127), "scale": np.float32(1 / 128)}
    pixels = _value("pixels", ("faces", 3, 112, 112))
    features = _value("output", ("faces", 512))
    return _model(net, nodes, [pixels], [features], constants)


def _score_nodes(stride: int) -> list[NodeProto]:
    """score = sqrt(class * objectness); the second anchor of each cell never scores."""
    name = f"score_{stride}"
    return [
        helper.make_node("Mul", [f"cls_{stride}", f"obj_{stride}"], [f"{name}_squared"]),
        helper.make_node("Sqrt", [f"{name}_squared"], [name]),
        helper.make_node("Mul", [name, "none"], [f"{name}_none"]),
        *_anchor_nodes(name, f"{name}_none", 1),
    ]


def _box_nodes(stride: int) -> list[NodeProto]:
    """Centre and log size -> distances to left, top, right, bottom, all in units of the stride."""
    name = f"box_{stride}"
    return [
        helper.make_node("Split", [f"bbox_{stride}"], [f"{name}_xy", f"{name}_log"], axis=2),
        helper.make_node("Exp", [f"{name}_log"], [f"{name}_size"]),
        helper.make_node("Mul", [f"{name}_size", "half"], [f"{name}_half"]),
        helper.make_node("Concat", [f"{name}_xy"] * 2, [f"{name}_centre"], axis=2),
        helper.make_node("Mul", [f"{name}_centre", "flip"], [f"{name}_shift"]),
        helper.make_node("Concat", [f"{name}_half"] * 2, [f"{name}_extent"], axis=2),
        helper.make_node("Add", [f"{name}_extent", f"{name}_shift"], [name]),
        *_anchor_nodes(name, name, 4),
    ]


def _landmark_nodes(stride: int) -> list[NodeProto]:
    """YuNet's landmarks are SCRFD's already: offsets from the cell in units of the stride."""
    return _anchor_nodes(f"kps_{stride}", f"kps_{stride}", 10)


def _anchor_nodes(first: str, second: str, width: int) -> list[NodeProto]:
    """Two anchors per cell, one row each."""
    return [
        helper.make_node("Concat", [first, second], [f"{first}_pairs"], axis=2),
        helper.make_node("Reshape", [f"{first}_pairs", f"rows_{width}"], [f"{first}_anchors"]),
    ]


def _value(name: str, shape: Sequence[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(
    source: ModelProto,
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    constants: Mapping[str, ArrayLike],
) -> ModelProto:
    """The nodes with the source's weights, the new constants, and the source's versions."""
    weights = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    for node in nodes:
        node.ClearField("doc_string")
    graph = helper.make_graph(
        nodes, source.graph.name, inputs, outputs, [*source.graph.initializer, *weights]
    )
    model = helper.make_model(
        graph, opset_imports=source.opset_import, ir_version=source.ir_version
    )
    checker.check_model(model, full_check=True)
    return model

"""Writes the face nets as ONNX, in fp16 on disk, with the outputs that insightface expects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

OPSET, IR = 17, 8
PACK = Path("models", "miniature")  # an InsightFace model pack
STRIDES = (8, 16, 32)


class Graph:
    """Collects nodes and weights; weights are stored in half precision and cast when loaded."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, kind: str, *inputs: str, output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str, value: torch.Tensor) -> str:
        half = self.constant(name + ".half", value.detach().half().numpy())
        return self.add("Cast", half, output=name, to=TensorProto.FLOAT)

    def sequence(self, layers: nn.Sequential, prefix: str, source: str, weights: str) -> str:
        """Add layers one after the other; `weights` names the weights that `load` has stored."""
        for number, layer in enumerate(layers):
            name, output = f"{weights}.{number}", f"{prefix}.{number}"
            if isinstance(layer, nn.Conv2d):
                source = self._conv(layer, name, source, output)
            elif isinstance(layer, nn.Linear):
                both = f"{name}.weight", f"{name}.bias"
                source = self.add("Gemm", source, *both, output=output, transB=1)
            else:
                source = self.add(_KINDS[type(layer)], source, output=output)
        return source

    def load(self, layers: nn.Sequential, prefix: str) -> None:
        for name, value in layers.named_parameters():
            self.weight(f"{prefix}.{name}", value)

    def _conv(self, layer: nn.Conv2d, name: str, source: str, output: str) -> str:
        both = f"{name}.weight", f"{name}.bias"
        pad, dilation = int(layer.padding[0]), layer.dilation[0]
        return self.add(
            "Conv",
            source,
            *both,
            output=output,
            strides=list(layer.stride),
            pads=[pad] * 4,
            dilations=[dilation] * 2,
        )

    def write(self, path: Path, inputs: dict[str, tuple], outputs: dict[str, tuple]) -> None:
        """Write the graph. A size that is a word may vary."""
        ends = [
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in e.items()
            ]
            for e in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, path.stem, *ends, self.weights)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR)
        onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)


_KINDS = {nn.ReLU: "Relu", nn.Flatten: "Flatten", nn.Sigmoid: "Sigmoid"}


def fused(layers: nn.Sequential) -> nn.Sequential:
    """Fold each batch normalisation into the convolution before it."""
    done: list[nn.Module] = []
    for layer in layers.eval():
        if isinstance(layer, nn.BatchNorm2d):
            conv = done.pop()
            assert isinstance(conv, nn.Conv2d)
            done.append(fuse_conv_bn_eval(conv, layer))
        else:
            done.append(layer)
    return nn.Sequential(*done)


def write_recogniser(work: Path, trained: nn.Sequential) -> None:
    """Write a net `(n, 3, 112, 112)` RGB in -1..1, as insightface feeds it, -> `(n, 512)`."""
    layers, graph = fused(trained), Graph()
    graph.load(layers, "net")
    last = graph.sequence(layers, "layer", "pixels", "net")
    graph.add("Identity", last, output="features")
    path = work / PACK / "recogniser.onnx"
    graph.write(path, {"pixels": ("faces", 3, 112, 112)}, {"features": ("faces", 512)})


def write_detector(work: Path, trained: nn.Sequential) -> None:
    """Write nine outputs, as SCRFD: scores, boxes, landmarks, each for strides 8, 16 and 32.

    Each anchor has a row. A cell has two anchors, and the second never scores. The picture may
    have any multiple of 32 as size.
    """
    layers, graph = fused(trained), Graph()
    graph.load(layers, "net")
    graph.constant("none", np.zeros(1, np.float32))
    for width in (1, 4, 10):
        graph.constant(f"rows_{width}", np.array([-1, width]))
    sizes = graph.constant("widths", np.array([1, 4, 10]))
    source = "pixels"
    for stride in STRIDES:
        if stride > STRIDES[0]:
            shape = {"kernel_shape": [2, 2], "strides": [2, 2]}
            source = graph.add("AveragePool", source, output=f"pixels_{stride}", **shape)
        cells = graph.sequence(layers, f"layer_{stride}", source, "net")
        rows = graph.add("Transpose", cells, output=f"cells_{stride}", perm=[0, 2, 3, 1])
        _split(graph, rows, sizes, stride)
    outputs = {
        f"{kind}_{stride}": (f"anchors_{stride}", width)
        for kind, width in (("score", 1), ("box", 4), ("points", 10))
        for stride in STRIDES
    }
    graph.write(work / PACK / "detector.onnx", {"pixels": (1, 3, "height", "width")}, outputs)


def _split(graph: Graph, rows: str, sizes: str, stride: int) -> None:
    names = [f"{kind}_{stride}_cells" for kind in ("logit", "box", "points")]
    graph.nodes.append(helper.make_node("Split", [rows, sizes], names, axis=3))
    score = graph.add("Sigmoid", names[0], output=f"score_{stride}_cells")
    never = graph.add("Mul", score, "none", output=f"never_{stride}")
    pairs = {
        "score": (score, never, 1),
        "box": (names[1],) * 2 + (4,),
        "points": (names[2],) * 2 + (10,),
    }
    for kind, (first, second, width) in pairs.items():
        both = graph.add("Concat", first, second, output=f"{kind}_{stride}_pairs", axis=3)
        graph.add("Reshape", both, f"rows_{width}", output=f"{kind}_{stride}")

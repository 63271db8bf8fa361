"""A detector of a few nodes, named as in our exports.

It has a stem, a depthwise convolution, squeeze-excite (SE), a pyramid and heads.

It is built by hand, so that tests of precision need no torch. The weights are seeded. ``gain``
scales the stem's output, and a later node undoes that, so the results do not change.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from effdet_deploy.artifact.spec import (
    METADATA_KEY,
    AnchorSpec,
    ClassSpec,
    DetectorSpec,
    InputSpec,
    OutputSpec,
    even_octaves,
)

SIDE = 128
CLASSES = 3
CHANNELS = 16
ANCHORS = 1


def network_spec(nms: str = "none") -> DetectorSpec:
    """Return the spec of the tiny network."""
    return DetectorSpec(
        variant="tiny",
        input=InputSpec(SIDE, SIDE),
        anchors=AnchorSpec(3, 4, even_octaves(1), ((1.0, 1.0),), 4.0),
        classes=tuple(ClassSpec(str(index), index + 1) for index in range(CLASSES)),
        output=OutputSpec(nms=nms, candidates=50, max_detections=20),
    )


class _Builder:
    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def constant(self, name: str, values) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, operator: str, name: str, inputs: list[str], **attributes) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def conv(self, name, source, out, into, kernel=1, stride=1, group=1, gain=1.0) -> str:
        fan = into // group * kernel * kernel
        weight = self.random.normal(0, 1.4 / np.sqrt(fan), (out, into // group, kernel, kernel))
        bias = self.random.normal(0, 0.1, out)
        inputs = [
            source,
            self.constant(f"{name}.weight", (gain * weight).astype(np.float32)),
            self.constant(f"{name}.bias", bias.astype(np.float32)),
        ]
        pads = [kernel // 2] * 4
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads}
        return self.node("Conv", name, inputs, group=group, **attributes)

    def silu(self, name: str, source: str) -> str:
        gate = self.node("Sigmoid", f"{name}.sigmoid", [source])
        return self.node("Mul", f"{name}.mul", [source, gate])


def _backbone(net: _Builder, gain: float) -> str:
    x = net.conv("backbone.conv_stem.conv", "preprocess.sub", CHANNELS, 3, 3, 4, gain=gain / 60)
    if gain != 1.0:
        x = net.node(
            "Mul", "backbone.shrink.mul", [x, net.constant("shrink", np.float32(1 / gain))]
        )
    x = net.silu("backbone.bn1", x)
    x = net.conv("backbone.blocks.0.0.conv_dw.conv", x, CHANNELS, CHANNELS, 3, 2, CHANNELS)
    x = net.silu("backbone.blocks.0.0.bn1", x)
    axes = net.constant("axes", np.array([2, 3]))
    gate = net.node("ReduceMean", "backbone.blocks.0.0.se.reducemean", [x, axes], keepdims=1)
    gate = net.conv("backbone.blocks.0.0.se.conv_reduce.conv", gate, 4, CHANNELS)
    gate = net.conv("backbone.blocks.0.0.se.conv_expand.conv", gate, CHANNELS, 4)
    gate = net.node("Sigmoid", "backbone.blocks.0.0.se.gate.sigmoid", [gate])
    x = net.node("Mul", "backbone.blocks.0.0.se.mul", [x, gate])
    return net.conv("backbone.blocks.0.0.conv_pw.conv", x, CHANNELS, CHANNELS)


def _pyramid(net: _Builder, fine: str) -> list[str]:
    coarse = net.node(
        "MaxPool", "fpn.resample.0.maxpool", [fine], kernel_shape=[2, 2], strides=[2, 2]
    )
    coarse = net.conv("fpn.cell.0.coarse.conv_pw", coarse, CHANNELS, CHANNELS)
    scales = net.constant("scales", np.array([1, 1, 2, 2], np.float32))
    grown = net.node("Resize", "fpn.cell.0.resize", [coarse, "", scales], mode="nearest")
    fine = net.node("Add", "fpn.cell.0.add", [fine, grown])
    fine = net.conv("fpn.cell.0.fine.conv_dw", fine, CHANNELS, CHANNELS, 3, 1, CHANNELS)
    return [net.conv("fpn.cell.0.fine.conv_pw", fine, CHANNELS, CHANNELS), coarse]


def _head(net: _Builder, maps: list[str], module: str, output: str, channels: int) -> None:
    rows = []
    for level, source in enumerate(maps):
        name = f"{module}.conv_rep.0.level.{level}"
        x = net.silu(f"{name}.act", net.conv(name, source, CHANNELS, CHANNELS))
        weight = next((t.name for t in net.tensors if t.name == f"{module}.predict.weight"), None)
        if weight is None:
            x = net.conv(f"{module}.predict", x, channels, CHANNELS)
        else:
            inputs = [x, weight, f"{module}.predict.bias"]
            x = net.node("Conv", f"{module}.predict_{level}", inputs, kernel_shape=[1, 1])
        x = net.node("Transpose", f"{output}.transpose_{level}", [x], perm=[0, 2, 3, 1])
        shape = net.constant(f"{output}.shape_{level}", np.array([1, -1, channels]))
        rows.append(net.node("Reshape", f"{output}.reshape_{level}", [x, shape]))
    joined = net.node("Concat", f"{output}.concat", rows, axis=1)
    shape = net.constant(f"{output}.shape", np.array([1, -1, channels]))
    net.nodes.append(helper.make_node("Reshape", [joined, shape], [output], f"{output}.reshape"))


def _table_head(net: _Builder, maps: list[str], module: str, output: str, channels: int) -> None:
    """Add a head as our exporter writes it: one matrix product for all levels."""
    rows = []
    for level, source in enumerate(maps):
        name = f"{module}.conv_rep.0.level.{level}"
        x = net.silu(f"{name}.act", net.conv(name, source, CHANNELS, CHANNELS))
        x = net.node("Transpose", f"{module}.predict.transpose_{level}", [x], perm=[0, 2, 3, 1])
        shape = net.constant(f"{module}.predict.shape_{level}", np.array([1, -1, CHANNELS]))
        rows.append(net.node("Reshape", f"{module}.predict.reshape_{level}", [x, shape]))
    joined = net.node("Concat", f"{module}.predict.concat", rows, axis=1)
    shape = net.constant(f"{module}.predict.rows", np.array([-1, CHANNELS]))
    table = net.node("Reshape", f"{module}.predict.reshape", [joined, shape])
    name = f"{module}.predict.conv_pw.gemm"
    weight = net.random.normal(0, CHANNELS**-0.5, (CHANNELS, channels)).astype(np.float32)
    bias = net.random.normal(0, 0.1, channels).astype(np.float32)
    constants = [net.constant(f"{name}.weight", weight), net.constant(f"{name}.bias", bias)]
    x = net.node("Gemm", name, [table, *constants])
    shape = net.constant(f"{output}.shape", np.array([1, -1, channels]))
    net.nodes.append(helper.make_node("Reshape", [x, shape], [output], f"{output}.reshape"))


def tiny_network(*, gain: float = 1.0, seed: int = 0, table: bool = False) -> onnx.ModelProto:
    """Return the network with raw heads as outputs and its spec in the metadata.

    With ``table`` the class scores come from one matrix product, as in our exports.
    """
    net = _Builder(seed)
    net.node("Cast", "preprocess.cast", ["images"], to=onnx.TensorProto.FLOAT)
    net.node("Transpose", "preprocess.transpose", ["preprocess.cast"], perm=[0, 3, 1, 2])
    mean = net.constant("preprocess.mean", np.full((1, 3, 1, 1), 120, np.float32))
    net.node("Sub", "preprocess.sub", ["preprocess.transpose", mean])
    maps = _pyramid(net, _backbone(net, gain))
    head = _table_head if table else _head
    head(net, maps, "class_net", "class_logits", CLASSES)
    _head(net, maps, "box_net", "box_regression", 4)
    anchors = (SIDE // 8) ** 2 + (SIDE // 16) ** 2
    graph = helper.make_graph(
        net.nodes,
        "effdet",
        [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, [1, SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, anchors, channels])
            for name, channels in (("class_logits", CLASSES), ("box_regression", 4))
        ],
        initializer=net.tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: network_spec().to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model

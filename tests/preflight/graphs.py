"""Functions that build tiny ONNX graphs; the node with the problem, if any, is called ``bad``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FLOAT, HALF, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
IMAGE = (1, 3, 8, 8)
SCALE, ZERO = np.float32(0.02), np.int8(0)
node = helper.make_node


def value(name: str, kind: int = FLOAT, shape: Sequence[int | str | None] = IMAGE):
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, array: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def graph(
    nodes: Iterable[onnx.NodeProto],
    outputs: Iterable[onnx.ValueInfoProto],
    constants: Iterable[onnx.TensorProto] = (),
    *,
    inputs: Iterable[onnx.ValueInfoProto] | None = None,
    opset: int = 20,
    ir_version: int = 10,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    inputs = [value("x")] if inputs is None else list(inputs)
    body = helper.make_graph(nodes, "planted", inputs, outputs, initializer=list(constants))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(each, 1) for each in domains)]
    return helper.make_model(body, opset_imports=opsets, ir_version=ir_version)


def single(operator: str, *, domain: str = "", opset: int = 20, **attributes) -> onnx.ModelProto:
    made = node(operator, ["x"], ["y"], name="bad", domain=domain, **attributes)
    return graph([made], [value("y")], opset=opset, domains=[domain] if domain else [])


def top_k(count: int, **attributes) -> onnx.ModelProto:
    return graph(
        [node("TopK", ["x", "k"], ["y", "indices"], name="bad", **attributes)],
        [value("y", shape=(1, count)), value("indices", TensorProto.INT64, (1, count))],
        [constant("k", np.array([count]))],
        inputs=[value("x", shape=(1, 6000))],
    )


def resize(**attributes) -> onnx.ModelProto:
    return graph(
        [node("Resize", ["x", "", "scales"], ["y"], name="bad", **attributes)],
        [value("y", shape=(1, 3, 16, 16))],
        [constant("scales", np.array([1, 1, 2, 2], np.float32))],
    )


def uint8_first(operator: str, *others: onnx.TensorProto, **attributes) -> onnx.ModelProto:
    names = ["x", *(each.name for each in others)]
    return graph(
        [
            node(operator, names, ["early"], name="bad", **attributes),
            node("Cast", ["early"], ["y"], name="cast", to=FLOAT),
        ],
        [value("y", shape=(None,) * 4)],
        others,
        inputs=[value("x", UINT8, (1, 8, 8, 3))],
    )


def half_and_full(operator: str, kind: int = FLOAT, **attributes) -> onnx.ModelProto:
    return graph(
        [
            node("Cast", ["x"], ["half"], name="cast", to=HALF),
            node(operator, ["x", "half"], ["y"], name="bad", **attributes),
        ],
        [value("y", kind, (None,) * 4)],
    )


def quantized(
    *,
    scale: Any = SCALE,
    zero: Any = ZERO,
    weight_scale: Any = None,
    weight_axis: int = 0,
    activation: bool = True,
    weight: bool = True,
    bias: bool = False,
    axis: int | None = None,
) -> onnx.ModelProto:
    """Return x → Q → DQ → Conv ← DQ ← int8 weights; parts can be left out or made invalid."""
    half = np.asarray(scale).dtype == np.float16
    width = np.float16 if half else np.float32
    scales = np.full(4, 0.01, width) if weight_scale is None else weight_scale
    weights = np.random.default_rng(0).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    along = {} if axis is None else {"axis": axis}
    nodes = [node("Cast", ["x"], ["start"], name="cast", to=HALF if half else FLOAT)]
    constants = [constant("scale", scale), constant("zero", zero)]
    source, kernel, extra = "start", "weights", []
    if activation:
        nodes += [
            node("QuantizeLinear", ["start", "scale", "zero"], ["q"], name="Q", **along),
            node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], name="DQ", **along),
        ]
        source = "dq"
    if weight:
        constants += [
            constant("integers", weights),
            constant("weight_scale", scales),
            constant("weight_zero", np.zeros(np.shape(scales), np.int8)),
        ]
        of_weight = ["integers", "weight_scale", "weight_zero"]
        nodes.append(
            node("DequantizeLinear", of_weight, ["weights"], name="weightDQ", axis=weight_axis)
        )
    else:
        constants.append(constant("weights", (weights * 0.01).astype(width)))
    if bias:
        constants += [
            constant("bias_integers", np.ones(4, np.int32)),
            constant("bias_scale", np.full(4, 2e-4, width)),
        ]
        of_bias = ["bias_integers", "bias_scale"]
        nodes.append(node("DequantizeLinear", of_bias, ["bias"], name="biasDQ", axis=0))
        extra = ["bias"]
    nodes += [
        node("Conv", [source, kernel, *extra], ["out"], name="conv"),
        node("Cast", ["out"], ["y"], name="end", to=FLOAT),
    ]
    return graph(nodes, [value("y", shape=(1, 4, 6, 6))], constants, opset=19)


def integer_convolution() -> onnx.ModelProto:
    inputs = ["q", "scale", "zero", "weights", "scale", "zero", "scale", "zero"]
    return graph(
        [
            node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="Q"),
            node("QLinearConv", inputs, ["out"], name="bad"),
            node("DequantizeLinear", ["out", "scale", "zero"], ["y"], name="DQ"),
        ],
        [value("y", shape=(1, 4, 6, 6))],
        [
            constant("scale", np.float32(0.1)),
            constant("zero", np.int8(0)),
            constant("weights", np.ones((4, 3, 3, 3), np.int8)),
        ],
        opset=19,
    )


def dynamic_quantization() -> onnx.ModelProto:
    return graph(
        [
            node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], name="bad"),
            node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="DQ"),
        ],
        [value("y")],
        opset=19,
    )


def non_max_suppression() -> onnx.ModelProto:
    return graph(
        [node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["y"], name="bad")],
        [value("y", TensorProto.INT64, ("found", 3))],
        [constant("most", np.array([5])), constant("iou", np.array([0.5], np.float32))],
        inputs=[value("boxes", shape=(1, 20, 4)), value("scores", shape=(1, 3, 20))],
    )


PLUGIN = {
    "score_threshold": 0.1,
    "iou_threshold": 0.5,
    "max_output_boxes": 10,
    "background_class": -1,
    "score_activation": 0,
    "box_coding": 0,
}


def efficient_nms(*, boxes: int = FLOAT, **attributes) -> onnx.ModelProto:
    outputs = {
        "num_detections": (TensorProto.INT32, (1, 1)),
        "detection_boxes": (FLOAT, (1, 10, 4)),
        "detection_scores": (FLOAT, (1, 10)),
        "detection_classes": (TensorProto.INT32, (1, 10)),
    }
    made = node(
        "EfficientNMS_TRT",
        ["boxes", "scores"],
        list(outputs),
        name="bad",
        domain="TRT",
        **attributes,
    )
    return graph(
        [made],
        [value(name, *of) for name, of in outputs.items()],
        inputs=[value("boxes", boxes, (1, 20, 4)), value("scores", shape=(1, 20, 3))],
        domains=["TRT"],
    )


def two_outputs_of_max_pool() -> onnx.ModelProto:
    return graph(
        [node("MaxPool", ["x"], ["y", "where"], name="bad", kernel_shape=[2, 2])],
        [value("y", shape=(1, 3, 7, 7)), value("where", TensorProto.INT64, (1, 3, 7, 7))],
    )


def axes_from_an_input() -> onnx.ModelProto:
    return graph(
        [node("ReduceSum", ["x", "axes"], ["y"], name="bad", keepdims=1)],
        [value("y", shape=(None,) * 4)],
        inputs=[value("x"), value("axes", TensorProto.INT64, (1,))],
    )


def integers_into(operator: str, kind: int) -> onnx.ModelProto:
    return graph(
        [
            node("Cast", ["x"], ["whole"], name="cast", to=kind),
            node(operator, ["whole"], ["out"], name="bad"),
            node("Cast", ["out"], ["y"], name="end", to=FLOAT),
        ],
        [value("y")],
    )


def cast_through(kind: int) -> onnx.ModelProto:
    return graph(
        [
            node("Cast", ["x"], ["between"], name="bad", to=kind),
            node("Cast", ["between"], ["y"], name="end", to=FLOAT),
        ],
        [value("y")],
    )


def half_output_declared_full() -> onnx.ModelProto:
    return graph(
        [
            node("Cast", ["x"], ["half"], name="cast", to=HALF),
            node("Relu", ["half"], ["y"], name="bad"),
        ],
        [value("y", FLOAT)],
    )


def condition_of_floats() -> onnx.ModelProto:
    return graph([node("Where", ["x", "x", "x"], ["y"], name="bad")], [value("y")])


def half_bias() -> onnx.ModelProto:
    weights = np.ones((4, 3, 3, 3), np.float16)
    return graph(
        [
            node("Cast", ["x"], ["half"], name="cast", to=HALF),
            node("Conv", ["half", "weights", "bias"], ["out"], name="bad"),
            node("Cast", ["out"], ["y"], name="end", to=FLOAT),
        ],
        [value("y", shape=(1, 4, 6, 6))],
        [constant("weights", weights), constant("bias", np.ones(4, np.float32))],
    )


def inside_a_branch() -> onnx.ModelProto:
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(operator, ["x"], [name], name=made)], name, [], [value(name)]
        )
        for name, operator, made in (("then", "Relu", "good"), ("else", "Bernoulli", "bad"))
    }
    return graph(
        [node("If", ["which"], ["y"], name="if", **branches)],
        [value("y")],
        inputs=[value("x"), value("which", TensorProto.BOOL, ())],
    )


def nine_dimensions() -> onnx.ModelProto:
    wide = (1,) * 9
    return graph(
        [node("Relu", ["x"], ["y"], name="relu")],
        [value("y", shape=wide)],
        inputs=[value("x", shape=wide)],
    )


def nothing_feeds_it() -> onnx.ModelProto:
    return graph([node("Add", ["x", "nowhere"], ["y"], name="bad")], [value("y")])


def non_zero() -> onnx.ModelProto:
    return graph(
        [node("NonZero", ["x"], ["y"], name="bad")], [value("y", TensorProto.INT64, (4, "found"))]
    )


def blocks_of_channels() -> onnx.ModelProto:
    inputs = ["scale", "zero"]
    return graph(
        [
            node("QuantizeLinear", ["x", *inputs], ["q"], name="bad", axis=1, block_size=3),
            node("DequantizeLinear", ["q", *inputs], ["y"], name="bad", axis=1, block_size=3),
        ],
        [value("y")],
        [
            constant("scale", np.full((1, 1, 8, 8), 0.1, np.float32)),
            constant("zero", np.zeros((1, 1, 8, 8), np.int8)),
        ],
        opset=21,
    )


def bitwise() -> onnx.ModelProto:
    return graph(
        [
            node("Cast", ["x"], ["whole"], name="cast", to=TensorProto.INT32),
            node("BitwiseAnd", ["whole", "mask"], ["out"], name="bad"),
            node("Cast", ["out"], ["y"], name="end", to=FLOAT),
        ],
        [value("y")],
        [constant("mask", np.int32(7))],
    )

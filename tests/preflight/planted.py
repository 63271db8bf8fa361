"""Tiny ONNX graphs with one problem planted in each, and sound ones that look alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from tests.preflight.graphs import (
    FLOAT,
    HALF,
    PLUGIN,
    UINT8,
    axes_from_an_input,
    bitwise,
    blocks_of_channels,
    cast_through,
    condition_of_floats,
    constant,
    dynamic_quantization,
    efficient_nms,
    graph,
    half_and_full,
    half_bias,
    half_output_declared_full,
    inside_a_branch,
    integer_convolution,
    integers_into,
    nine_dimensions,
    node,
    non_max_suppression,
    non_zero,
    nothing_feeds_it,
    quantized,
    resize,
    single,
    top_k,
    two_outputs_of_max_pool,
    uint8_first,
    value,
)

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

RTX = "tensorrt-rtx"


@dataclass(frozen=True)
class Planted:
    """A model, the rule that must find its only problem, and the node where the problem is."""

    name: str
    model: onnx.ModelProto
    rule: str
    node: str
    severity: str = "error"
    target: str = RTX

    def write(self, directory: Path) -> Path:
        path = directory / "planted.onnx"
        path.write_bytes(self.model.SerializeToString())
        return path


REFUSED = (
    Planted("TopK beyond the limit", top_k(3841), "topk", "bad"),
    Planted("uint8 transposed before the Cast", uint8_first("Transpose"), "uint8", "bad"),
    Planted(
        "uint8 gathered before the Cast",
        uint8_first("Gather", constant("order", np.array([2, 1, 0])), axis=3),
        "uint8",
        "bad",
    ),
    Planted("uint8 inside the graph", cast_through(UINT8), "uint8", "bad"),
    Planted("antialiased Resize", resize(mode="linear", antialias=1), "attribute", "bad"),
    Planted(
        "Resize by crop",
        resize(mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
        "attribute",
        "bad",
    ),
    Planted("asymmetric activation", quantized(zero=np.int8(3)), "zero-point", "Q"),
    Planted("asymmetric uint8 activation", quantized(zero=np.uint8(128)), "zero-point", "Q"),
    Planted("quantized bias", quantized(bias=True), "quantized-bias", "biasDQ"),
    Planted("scale of zero", quantized(scale=np.float32(0)), "scale", "Q"),
    Planted(
        "FP16 scale that became zero",
        quantized(
            scale=np.float16(0.02), weight_scale=np.array([0.01, 1e-9, 0.01, 0.01], np.float16)
        ),
        "scale",
        "weightDQ",
    ),
    Planted("blocks along channels", blocks_of_channels(), "blocks", "bad"),
    Planted("QLinearConv", integer_convolution(), "operator", "bad"),
    Planted("DynamicQuantizeLinear", dynamic_quantization(), "operator", "bad"),
    Planted("Add of FP16 and FP32", half_and_full("Add"), "strong-typing", "bad"),
    Planted("Concat of FP16 and FP32", half_and_full("Concat", axis=1), "strong-typing", "bad"),
    Planted(
        "Less of FP16 and FP32", half_and_full("Less", TensorProto.BOOL), "strong-typing", "bad"
    ),
    Planted("FP32 bias of an FP16 Conv", half_bias(), "strong-typing", "bad"),
    Planted("condition that is not BOOL", condition_of_floats(), "onnx-type", "bad"),
    Planted("INT32 Sigmoid", integers_into("Sigmoid", TensorProto.INT32), "operator-type", "bad"),
    Planted("BOOL Relu", integers_into("Relu", TensorProto.BOOL), "operator-type", "bad"),
    Planted("INT16 tensor", cast_through(TensorProto.INT16), "tensor-type", "bad"),
    Planted("NonMaxSuppression", non_max_suppression(), "operator", "bad"),
    Planted("NonZero", non_zero(), "operator", "bad"),
    Planted("EfficientNMS_TRT without plugins", efficient_nms(**PLUGIN), "plugin", "bad"),
    Planted("custom operator", single("Mystery", domain="my.domain"), "operator", "bad"),
    Planted("BitwiseAnd", bitwise(), "operator", "bad"),
    Planted("MaxPool with indices", two_outputs_of_max_pool(), "outputs", "bad"),
    Planted(
        "dilated MaxPool",
        graph(
            [node("MaxPool", ["x"], ["y"], name="bad", kernel_shape=[2, 2], dilations=[2, 2])],
            [value("y", shape=(1, 3, 6, 6))],
        ),
        "attribute",
        "bad",
    ),
    Planted("axes from an input", axes_from_an_input(), "constant-input", "bad"),
    Planted("operator in a branch", inside_a_branch(), "operator", "bad"),
    Planted("nine dimensions", nine_dimensions(), "rank", "relu"),
    Planted("input that no node computes", nothing_feeds_it(), "undefined-input", "bad"),
)
"""Problems that RTX's parser or builder refuses."""

ACCEPTED_IN_SILENCE = (
    Planted(
        "FP16 output declared as FP32",
        half_output_declared_full(),
        "output-type",
        "bad",
        "warning",
    ),
    Planted(
        "uint8 activation with zero point 0",
        quantized(zero=np.uint8(0)),
        "unsigned",
        "Q",
        "warning",
    ),
    Planted(
        "weights quantized along axis 1",
        quantized(weight_scale=np.full(3, 0.01, np.float32), weight_axis=1),
        "weight-axis",
        "weightDQ",
        "warning",
    ),
    Planted("INT8 weights only", quantized(activation=False), "half-quantized", "conv", "warning"),
    Planted("INT8 activation only", quantized(weight=False), "half-quantized", "conv", "warning"),
    Planted(
        "activation with a scale per channel",
        quantized(scale=np.full(3, 0.02, np.float32), zero=np.zeros(3, np.int8), axis=1),
        "per-channel-activation",
        "Q",
        "warning",
    ),
    Planted(
        "FP16 scale that is subnormal",
        quantized(
            scale=np.float16(0.02), weight_scale=np.array([0.01, 6e-8, 0.01, 0.01], np.float16)
        ),
        "scale",
        "weightDQ",
        "warning",
    ),
    Planted("opset too new", single("Relu", opset=99), "opset", "", "warning"),
    Planted("opset too old", single("Relu", opset=8), "opset", "", "warning"),
    Planted(
        "IR too new",
        graph([node("Relu", ["x"], ["y"], name="bad")], [value("y")], ir_version=99),
        "ir-version",
        "",
        "warning",
    ),
    Planted("FP64", cast_through(TensorProto.DOUBLE), "double", "bad", "warning"),
    Planted(
        "operator of another domain named like one of ONNX",
        single("Gelu", domain="com.microsoft"),
        "domain",
        "bad",
        "warning",
    ),
    Planted(
        "INT8 Relu", integers_into("Relu", TensorProto.INT8), "operator-type", "bad", "warning"
    ),
)
"""Problems that RTX accepts silently and then computes something else."""

OF_ONE_VERSION = (
    Planted(
        "Swish before TensorRT 11",
        single("Swish", opset=24),
        "operator",
        "bad",
        target="tensorrt-10",
    ),
    Planted("cubic Resize", resize(mode="cubic"), "attribute", "bad", target="tensorrt-11"),
    Planted("unsorted TopK", top_k(10, sorted=0), "attribute", "bad", target="tensorrt-10"),
    Planted(
        "plugin that lacks an attribute",
        efficient_nms(**{name: given for name, given in PLUGIN.items() if name != "box_coding"}),
        "plugin",
        "bad",
        target="tensorrt-11",
    ),
    Planted(
        "plugin with integer boxes",
        efficient_nms(boxes=TensorProto.INT32, **PLUGIN),
        "plugin",
        "bad",
        target="tensorrt-10",
    ),
    Planted(
        "output of unknown size",
        non_max_suppression(),
        "data-dependent-shape",
        "bad",
        "warning",
        "tensorrt-11",
    ),
)
"""Problems of TensorRT 10 or 11 that RTX's parser cannot judge."""

SOUND = {
    "TopK at the limit": top_k(3840),
    "uint8 cast first": graph(
        [node("Cast", ["x"], ["y"], name="cast", to=FLOAT)],
        [value("y", shape=(1, 8, 8, 3))],
        inputs=[value("x", UINT8, (1, 8, 8, 3))],
    ),
    "nearest Resize": resize(mode="nearest"),
    "linear Resize": resize(mode="linear"),
    "quantized": quantized(),
    "quantized in FP16": quantized(scale=np.float16(0.02)),
    "Pow with an FP32 exponent": graph(
        [
            node("Cast", ["x"], ["half"], name="cast", to=HALF),
            node("Pow", ["half", "two"], ["out"], name="pow"),
            node("Cast", ["out"], ["y"], name="end", to=FLOAT),
        ],
        [value("y")],
        [constant("two", np.float32(2))],
    ),
}
"""Models without a problem, which look like the planted ones."""

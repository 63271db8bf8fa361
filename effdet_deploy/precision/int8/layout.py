"""INT8 written as pairs of QuantizeLinear and DequantizeLinear, as the target runtime needs them.

The runtime turns these pairs into INT8 kernels. Every value that a convolution reads has one pair;
weights are stored as int8 with a scale per output channel. Biases stay float: an int32 bias would
need a fixed scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from effdet_deploy.onnxgraph.index import (
    consumers,
    initializers,
    insert_after,
    require_opset,
)
from effdet_deploy.precision.int8.calibration import LEVELS
from effdet_deploy.precision.int8.rounding import LARGEST_INT8, SMALLEST_SCALE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

    from effdet_deploy.artifact.spec import Target
    from effdet_deploy.onnxgraph.running import Range
    from effdet_deploy.precision.int8.convolutions import Convolution
    from effdet_deploy.precision.int8.rounding import QuantizedWeight

OPSET = 19
"""The first opset in which quantizers accept float16 scales."""


@dataclass(frozen=True)
class Layout:
    """The form of a graph from which a runtime makes INT8 kernels.

    Attributes:
        symmetric: activations are int8 around zero; otherwise they are uint8 with a zero point, so
            that no level is spent on values that an activation function never gives.
        outputs: a convolution becomes INT8 only if its output is quantized too.
        half: everything that is not INT8 becomes FP16, so scales must be valid in FP16.
        depthwise: depthwise convolutions of the backbone are INT8 by default too: they are little
            work, but tensors between them and their INT8 neighbors stay four times smaller.
        products: matrix products can be INT8, and the product that gives the class scores is INT8
            by default: for 90 classes it is the largest single layer.
        paired: runtimes for x86 may add products in pairs, in 16 bits that saturate.
    """

    symmetric: bool
    outputs: bool
    half: bool
    depthwise: bool = False
    products: bool = False
    paired: bool = True

    def takes(self, each: Convolution) -> bool:
        """Return whether a convolution is INT8 by default; docs/precision.md gives the reasons."""
        if each.kind == "depthwise":
            return self.depthwise and each.stage.startswith("backbone")
        if each.kind == "product":
            return self.products and each.stage == "class_net"
        return each.kind == "dense"

    def can_take(self, each: Convolution) -> bool:
        """Return whether a convolution can be INT8 at all."""
        return each.kind != "product" or self.products


LAYOUTS: dict[Target, Layout] = {
    "tensorrt": Layout(symmetric=True, outputs=False, half=True, paired=False),
    "openvino": Layout(symmetric=False, outputs=False, half=False, depthwise=True, products=True),
    "onnxruntime": Layout(symmetric=False, outputs=True, half=False),
}


def quantized_values(convolutions: Iterable[Convolution], layout: Layout) -> list[str]:
    """Return the values that get a quantizer when ``convolutions`` become INT8."""
    values: dict[str, None] = {}
    for each in convolutions:
        values[each.source] = None
        if layout.outputs:
            values[each.output] = None
    return list(values)


def insert_quantizers(
    model: ModelProto,
    convolutions: Iterable[Convolution],
    ranges: Mapping[str, Range],
    weights: Mapping[str, QuantizedWeight],
    layout: Layout,
) -> None:
    """Convert ``convolutions`` to INT8, in place.

    Args:
        model: the FP32 graph.
        convolutions: the convolutions to quantize.
        ranges: the ranges of all values of :func:`quantized_values`.
        weights: the quantized weights by the name of their constant.
        layout: the layout for the runtime.

    Raises:
        ModelFileError: the graph's opset is too old.
    """
    require_opset(model, OPSET, "INT8")
    graph = model.graph
    chosen = list(convolutions)
    names = {each.name for each in chosen}
    pairs = {
        value: _activation_pair(graph, value, ranges[value], layout)
        for value in quantized_values(chosen, layout)
    }
    restored = {value: pair[1].output[0] for value, pair in pairs.items()}
    restored_weights = []
    for each in {each.weight: each for each in chosen}.values():
        weight, is_product = weights[each.weight], each.kind == "product"
        values = weight.values[:, :, 0, 0].T if is_product else weight.values
        _add_constant(graph, f"{each.weight}.int8", values)
        _add_constant(graph, f"{each.weight}.scale", weight.scale)
        _add_constant(graph, f"{each.weight}.zero_point", np.zeros(len(weight.scale), np.int8))
        stored = [f"{each.weight}.{part}" for part in ("int8", "scale", "zero_point")]
        name, axis = f"{each.weight}.dequantize", int(is_product)
        restored_weights.append(
            onnx.helper.make_node("DequantizeLinear", stored, [name], name, axis=axis)
        )
    outputs = {each.output for each in chosen} if layout.outputs else set()
    for node in graph.node:
        if node.name in names:
            node.input[0] = restored[node.input[0]]
            node.input[1] = f"{node.input[1]}.dequantize"
        for index, value in enumerate(node.input):
            if value in outputs and not (node.name in names and index == 0):
                node.input[index] = restored[value]
    insert_after(graph, pairs, restored_weights)
    readers, tensors = consumers(graph), initializers(graph)
    for name in dict.fromkeys(each.weight for each in chosen):
        if name not in readers:
            graph.initializer.remove(tensors[name])


def rounding_step(seen: Range, layout: Layout) -> float:
    """Return the size of one level of a quantizer for values in the range ``seen``."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    covered = max(-low, high) / LARGEST_INT8 if layout.symmetric else (high - low) / LEVELS
    scale = max(covered, SMALLEST_SCALE)
    return float(np.float16(scale)) if layout.half else scale


def _activation_pair(graph: GraphProto, value: str, seen: Range, layout: Layout) -> list[NodeProto]:
    scale = rounding_step(seen, layout)
    dtype = np.int8 if layout.symmetric else np.uint8
    zero = 0 if layout.symmetric else round(-min(seen.low, 0.0) / scale)
    constants = [f"{value}.scale", f"{value}.zero_point"]
    _add_constant(graph, constants[0], np.float32(scale))
    _add_constant(graph, constants[1], dtype(zero))
    quantized, restored = f"{value}.quantize", f"{value}.dequantize"
    return [
        onnx.helper.make_node("QuantizeLinear", [value, *constants], [quantized], quantized),
        onnx.helper.make_node("DequantizeLinear", [quantized, *constants], [restored], restored),
    ]


def _add_constant(graph: GraphProto, name: str, value: NDArray[np.generic] | np.generic) -> None:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))

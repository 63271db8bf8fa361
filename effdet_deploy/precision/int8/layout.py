"""INT8 written into the graph as Q/DQ pairs, in the form that each engine turns into INT8 kernels.

Quantisers stand on the inputs of convolutions, one pair a value; weights are stored as int8 with a
scale per output channel. Biases stay as they are: an int32 bias would tie them to one scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from effdet_deploy.onnxgraph.index import consumers, initializers, require_opset
from effdet_deploy.precision.int8.clipping import LEVELS
from effdet_deploy.precision.int8.rounding import LARGEST, SMALLEST_SCALE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

    from effdet_deploy.artifact.spec import Target
    from effdet_deploy.precision.int8.convolutions import Convolution
    from effdet_deploy.precision.int8.rounding import QuantisedWeight
    from effdet_deploy.precision.ranges import Range

OPSET = 19
"""The first in which quantisers take float16 scales."""


@dataclass(frozen=True)
class Layout:
    """What an engine needs to see before it computes in INT8.

    Attributes:
        symmetric: activations are int8 around zero; otherwise uint8 with a zero point, which spends
            no level on values that an activation function never gives.
        outputs: a convolution is INT8 only if its output is quantised too.
        half: what is not INT8 becomes FP16, so scales must survive in it.
        depthwise: the backbone's depthwise convolutions are INT8 by default, too: they are little
            work, but tensors between them and their INT8 neighbours stay four times smaller.
        products: matrix products can be INT8, and that of the class scores is by default: for 90
            classes it is the largest single layer.
    """

    symmetric: bool
    outputs: bool
    half: bool
    depthwise: bool = False
    products: bool = False

    def takes(self, each: Convolution) -> bool:
        """Tell whether the default policy makes a convolution INT8; docs/precision.md says why."""
        if each.kind == "depthwise":
            return self.depthwise and each.stage.startswith("backbone")
        if each.kind == "product":
            return self.products and each.stage == "class_net"
        return each.kind == "dense"

    def can_take(self, each: Convolution) -> bool:
        """Tell whether a convolution can be INT8 at all."""
        return each.kind != "product" or self.products


LAYOUTS: dict[Target, Layout] = {
    "tensorrt": Layout(symmetric=True, outputs=False, half=True),
    "openvino": Layout(symmetric=False, outputs=False, half=False, depthwise=True, products=True),
    "onnxruntime": Layout(symmetric=False, outputs=True, half=False),
}


def quantised_values(convolutions: Iterable[Convolution], layout: Layout) -> list[str]:
    """Return the values that get a quantiser when ``convolutions`` become INT8."""
    values: dict[str, None] = {}
    for each in convolutions:
        values[each.source] = None
        if layout.outputs:
            values[each.output] = None
    return list(values)


def insert_quantisers(
    model: ModelProto,
    convolutions: Iterable[Convolution],
    ranges: Mapping[str, Range],
    weights: Mapping[str, QuantisedWeight],
    layout: Layout,
) -> None:
    """Make ``convolutions`` INT8, in place.

    Args:
        model: the FP32 graph.
        convolutions: those to quantise.
        ranges: of every value of :func:`quantised_values`.
        weights: by the name of the constant.
        layout: of the engine.

    Raises:
        ModelFileError: the graph's opset is too old.
    """
    require_opset(model, OPSET, "INT8")
    graph = model.graph
    chosen = list(convolutions)
    added: dict[str, list[NodeProto]] = {}
    restored: dict[str, str] = {}
    names = {each.name for each in chosen}
    for value in quantised_values(chosen, layout):
        pair = _activation_pair(graph, value, ranges[value], layout)
        restored[value] = pair[1].output[0]
        added[value] = pair
    weight_nodes = [
        _weight_node(graph, each, weights[each.weight])
        for each in {each.weight: each for each in chosen}.values()
    ]
    outputs = {each.output for each in chosen} if layout.outputs else set()
    for node in graph.node:
        if node.name in names:
            node.input[0] = restored[node.input[0]]
            node.input[1] = f"{node.input[1]}.dequantize"
        for index, value in enumerate(node.input):
            if value in outputs and not (node.name in names and index == 0):
                node.input[index] = restored[value]
    _place(graph, weight_nodes, added)
    _drop_unused(graph, [each.weight for each in chosen])


def rounding_step(seen: Range, layout: Layout) -> float:
    """Return one level of the quantiser of a value that ranges over ``seen``."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    covered = max(-low, high) / LARGEST if layout.symmetric else (high - low) / LEVELS
    scale = max(covered, SMALLEST_SCALE)
    return float(np.float16(scale)) if layout.half else scale


def _activation_pair(graph: GraphProto, value: str, seen: Range, layout: Layout) -> list[NodeProto]:
    scale = rounding_step(seen, layout)
    dtype = np.int8 if layout.symmetric else np.uint8
    zero = 0 if layout.symmetric else round(-min(seen.low, 0.0) / scale)
    constants = [f"{value}.scale", f"{value}.zero_point"]
    _add_constant(graph, constants[0], np.float32(scale))
    _add_constant(graph, constants[1], dtype(zero))
    quantised, restored = f"{value}.quantize", f"{value}.dequantize"
    return [
        onnx.helper.make_node("QuantizeLinear", [value, *constants], [quantised], quantised),
        onnx.helper.make_node("DequantizeLinear", [quantised, *constants], [restored], restored),
    ]


def _weight_node(graph: GraphProto, each: Convolution, weight: QuantisedWeight) -> NodeProto:
    is_product = each.kind == "product"
    name, axis = each.weight, int(is_product)
    constants = [f"{name}.int8", f"{name}.scale", f"{name}.zero_point"]
    _add_constant(graph, constants[0], weight.values[:, :, 0, 0].T if is_product else weight.values)
    _add_constant(graph, constants[1], weight.scale)
    _add_constant(graph, constants[2], np.zeros(len(weight.scale), np.int8))
    restored = f"{name}.dequantize"
    return onnx.helper.make_node("DequantizeLinear", constants, [restored], restored, axis=axis)


def _add_constant(graph: GraphProto, name: str, value: NDArray[np.generic] | np.generic) -> None:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def _place(graph: GraphProto, first: list[NodeProto], added: Mapping[str, list[NodeProto]]) -> None:
    """Put the weights' nodes first, and each pair right after the node that makes its value."""
    ordered = list(first)
    for value in graph.input:
        ordered += added.get(value.name, [])
    for node in graph.node:
        ordered.append(node)
        for value in node.output:
            ordered += added.get(value, [])
    del graph.node[:]
    graph.node.extend(ordered)


def _drop_unused(graph: GraphProto, names: Iterable[str]) -> None:
    readers = consumers(graph)
    tensors = initializers(graph)
    for name in dict.fromkeys(names):
        if name not in readers:
            graph.initializer.remove(tensors[name])

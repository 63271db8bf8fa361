"""Graphs between a reference and its reduced form: some layers exact, the others as they are.

INT8 layers of the reduced file are taken back one by one: a convolution reads what was quantised
before it was, with the reference's own constants. FP16 is imitated on the reference instead, by
rounding every value that the reduced file holds in float16: engines that compute float16 nodes in
float32, as ONNX Runtime does on x86, would show no overflow.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx
from onnx import numpy_helper

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.errors import UsageError
from effdet_deploy.onnxgraph.heads import head_node
from effdet_deploy.onnxgraph.index import (
    float_inputs,
    float_values,
    initializers,
    network_nodes,
    producers,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from onnx import ModelProto, NodeProto, TensorProto

_HALF, _SINGLE = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
_DEQUANTIZE, _QUANTIZE = "DequantizeLinear", "QuantizeLinear"


class Grafting(Protocol):
    """A network in a reduced precision, whose layers can be made exact."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that are in the reduced precision, in graph order."""
        ...

    def with_exact(self, exact: Collection[str]) -> ModelProto:
        """Return a graph that gives the raw heads, with ``exact`` computed as the reference does.

        Its outputs are those of :data:`HEAD_OUTPUTS`, in float32.
        """
        ...


class Int8Grafting:
    """An INT8 file and the FP32 file it was made from; a layer is a convolution.

    Args:
        reference: the FP32 graph.
        candidate: the INT8 graph; it is not changed.

    Raises:
        UsageError: a quantised layer is not in the reference.
    """

    def __init__(self, reference: ModelProto, candidate: ModelProto) -> None:
        self._candidate = candidate
        self._nodes = {node.name: node for node in reference.graph.node}
        self._constants = initializers(reference.graph)
        self._makers = producers(candidate.graph)
        self._types = {each.name: each.data_type for each in candidate.graph.initializer}
        self.layers = tuple(
            node.name
            for node in network_nodes(candidate.graph)
            if node.op_type in ("Conv", "Gemm") and self._is_restored(node.input[1])
        )
        _require_same_network(self.layers, self._nodes)
        quantised = set(self.layers)
        # Values that a node outside these layers also reads quantised: the layer that makes them
        # keeps the quantiser while it is reduced.
        self._given_quantised = {
            before
            for node in candidate.graph.node
            if node.name not in quantised
            for value in node.input
            if (before := self._before_quantising(value)) != value
        }

    def with_exact(self, exact: Collection[str]) -> ModelProto:
        """Return the INT8 graph in which the convolutions ``exact`` are as in the reference."""
        model = deepcopy(self._candidate)
        reduced = set(self.layers) - set(exact)
        added: dict[str, TensorProto] = {}
        for node in model.graph.node:
            if node.name in reduced:
                continue
            if node.name in exact:
                self._restore_constants(node, added)
            for index, value in enumerate(node.input):
                node.input[index] = self._source(value, reduced)
        model.graph.initializer.extend(added.values())
        return with_heads(model, head_values(model))

    def _restore_constants(self, node: NodeProto, added: dict[str, TensorProto]) -> None:
        """Give a convolution the reference's weight and bias, in the type it computes in."""
        element_type = self._types.get(self._makers[node.input[1]].input[1], _SINGLE)
        del node.input[1:]
        for constant in self._nodes[node.name].input[1:]:
            name = f"{constant}.exact_{element_type}"
            added[name] = _cast_constant(self._constants[constant], name, element_type)
            node.input.append(name)

    def _source(self, value: str, reduced: Collection[str]) -> str:
        before = self._before_quantising(value)
        maker = self._makers.get(before)
        stays = before in self._given_quantised and maker is not None and maker.name in reduced
        return value if stays else before

    def _is_restored(self, value: str) -> bool:
        return value in self._makers and self._makers[value].op_type == _DEQUANTIZE

    def _before_quantising(self, value: str) -> str:
        """Return the value that a pair of quantisers stands behind, if ``value`` is a pair's."""
        if not self._is_restored(value):
            return value
        quantised = self._makers.get(self._makers[value].input[0])
        is_pair = quantised is not None and quantised.op_type == _QUANTIZE
        return str(quantised.input[0]) if quantised is not None and is_pair else value


class HalfGrafting:
    """An FP16 file and the FP32 file it was made from; a layer is a module of the network.

    Args:
        reference: the FP32 graph; it is not changed.
        candidate: the FP16 graph, which says what is float16.

    Raises:
        UsageError: a float16 node is not in the reference.
    """

    def __init__(self, reference: ModelProto, candidate: ModelProto) -> None:
        self._reference = reference
        reduced = _half_nodes(candidate)
        known = [node.name for node in network_nodes(reference.graph)]
        _require_same_network(reduced, known)
        self._members: dict[str, list[str]] = {}
        for name in known:
            if name in reduced:
                self._members.setdefault(name.rpartition(".")[0], []).append(name)
        self.layers = tuple(self._members)
        self._floats = float_values(reference)

    def with_exact(self, exact: Collection[str]) -> ModelProto:
        """Return the FP32 graph with every value rounded that is float16, but for ``exact``."""
        model = deepcopy(self._reference)
        graph = model.graph
        half = {
            name
            for layer, members in self._members.items()
            if layer not in exact
            for name in members
        }
        tensors = initializers(graph)
        heads = head_values(model)
        constants: dict[str, str] = {}
        pairs: dict[str, str] = {}
        made = {value for node in graph.node if node.name in half for value in node.output}
        for node in graph.node:
            if node.name not in half:
                continue
            for index, value in float_inputs(node, self._floats - made):
                renamed = constants if value in tensors else pairs
                node.input[index] = renamed.setdefault(value, f"{value}.rounded")
            for index, value in enumerate(node.output):
                if value in self._floats:
                    node.output[index] = f"{value}.unrounded"
                    pairs[node.output[index]] = value
        graph.initializer.extend(
            _rounded_constant(tensors[value], name) for value, name in constants.items()
        )
        _insert_rounding(model, pairs)
        return with_heads(model, heads)


def _half_nodes(model: ModelProto) -> set[str]:
    """Return the names of the network's nodes that compute in float16."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    halves = {
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == int(_HALF)
    }
    return {
        node.name
        for node in network_nodes(model.graph)
        if node.op_type != "Cast" and any(value in halves for value in node.output)
    }


def head_values(model: ModelProto) -> list[str]:
    """Return the names of the values that hold the raw heads."""
    return [str(head_node(model.graph, name).output[0]) for name in HEAD_OUTPUTS]


def with_heads(model: ModelProto, heads: Sequence[str]) -> ModelProto:
    """Make the raw heads the only outputs of ``model``, in float32; return it."""
    del model.graph.output[:]
    for name, value in zip(HEAD_OUTPUTS, heads, strict=True):
        output = f"{name}.measured"
        model.graph.node.append(
            onnx.helper.make_node("Cast", [value], [output], output, to=_SINGLE)
        )
        model.graph.output.append(onnx.helper.make_tensor_value_info(output, _SINGLE, None))
    return model


def _require_same_network(layers: Collection[str], known: Collection[str]) -> None:
    strangers = [name for name in layers if name not in known]
    if strangers:
        raise UsageError(
            f"The candidate's layer '{strangers[0]}' is not in the reference.",
            "Name the FP32 file that the candidate was made from as the reference.",
        )


def _cast_constant(tensor: TensorProto, name: str, element_type: int) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    dtype = np.float16 if element_type == int(_HALF) else np.float32
    return numpy_helper.from_array(values.astype(dtype), name)


def _rounded_constant(tensor: TensorProto, name: str) -> TensorProto:
    with np.errstate(over="ignore"):
        values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
    return numpy_helper.from_array(values, name)


def _insert_rounding(model: ModelProto, pairs: Mapping[str, str]) -> None:
    """Make the rounded form of each value, by name, right after the node that makes the value."""
    graph = model.graph
    ordered = [
        node
        for value in graph.input
        if value.name in pairs
        for node in _rounding(value.name, pairs[value.name])
    ]
    for node in graph.node:
        ordered.append(node)
        for value in node.output:
            if value in pairs:
                ordered += _rounding(value, pairs[value])
    del graph.node[:]
    graph.node.extend(ordered)


def _rounding(value: str, rounded: str) -> tuple[NodeProto, NodeProto]:
    half = f"{rounded}.as_fp16"
    return (
        onnx.helper.make_node("Cast", [value], [half], half, to=_HALF),
        onnx.helper.make_node("Cast", [half], [rounded], f"{rounded}.as_fp32", to=_SINGLE),
    )

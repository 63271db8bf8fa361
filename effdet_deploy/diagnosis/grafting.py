"""Grafting: graphs with some layers exact, as in a reference, and the others in lower precision.

INT8 layers of the reduced file are replaced one by one: a convolution then reads the value from
before the quantizer, and the reference's own constants. FP16 is imitated in the reference instead,
by rounding every value that the reduced file holds in float16: a runtime that computes float16
nodes in float32, as ONNX Runtime does on x86, would not show overflows.

``layers`` lists the reduced layers in graph order; ``with_exact`` makes a graph whose outputs are
the raw heads in float32.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from effdet_deploy.artifact.spec import HEAD_OUTPUTS, INPUT_NAME
from effdet_deploy.errors import UsageError
from effdet_deploy.onnxgraph.index import (
    float_inputs,
    float_values,
    initializers,
    insert_after,
    network_nodes,
    producers,
)
from effdet_deploy.onnxgraph.raw_heads import head_node
from effdet_deploy.onnxgraph.running import open_session
from effdet_deploy.parity.metrics import TensorErrors, tensor_errors

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto, TensorProto

_HALF, _SINGLE = int(onnx.TensorProto.FLOAT16), int(onnx.TensorProto.FLOAT)
_DEQUANTIZE, _QUANTIZE = "DequantizeLinear", "QuantizeLinear"


class Int8Grafting:
    """An INT8 file and the FP32 file it was made from; a layer is a convolution.

    Args:
        reference: the FP32 graph.
        candidate: the INT8 graph; it is not changed.

    Raises:
        UsageError: a quantized layer is not in the reference.
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
            if node.op_type in ("Conv", "Gemm") and self._made_by(node.input[1], _DEQUANTIZE)
        )
        _require_same_network(self.layers, self._nodes)
        quantized = set(self.layers)
        # Nodes outside the INT8 layers may read quantized values too. An INT8 layer that makes a
        # value for them keeps its quantizer even when it is made exact.
        self._given_quantized = {
            before
            for node in candidate.graph.node
            if node.name not in quantized
            for value in node.input
            if (before := self._before_quantizing(value)) != value
        }

    def with_exact(self, exact: Collection[str]) -> ModelProto:
        """Return the INT8 graph with the convolutions ``exact`` taken from the reference."""
        model = deepcopy(self._candidate)
        reduced = set(self.layers) - set(exact)
        added: dict[str, TensorProto] = {}
        for node in model.graph.node:
            if node.name in reduced:
                continue
            if node.name in exact:
                # The reference's weight and bias, in the type that the convolution computes in.
                scale = self._makers[node.input[1]].input[1]
                kind = self._types.get(scale, _SINGLE)
                del node.input[1:]
                for constant in self._nodes[node.name].input[1:]:
                    name = f"{constant}.exact_{kind}"
                    values = numpy_helper.to_array(self._constants[constant])
                    dtype = np.float16 if kind == _HALF else np.float32
                    added[name] = numpy_helper.from_array(values.astype(dtype), name)
                    node.input.append(name)
            for index, value in enumerate(node.input):
                before = self._before_quantizing(value)
                maker = self._makers.get(before)
                stays = maker is not None and maker.name in reduced
                if not (stays and before in self._given_quantized):
                    node.input[index] = before
        model.graph.initializer.extend(added.values())
        return with_heads(model, head_values(model))

    def _before_quantizing(self, value: str) -> str:
        """Return the value that was quantized, if ``value`` comes from a pair of quantizers."""
        restored = self._made_by(value, _DEQUANTIZE)
        pair = restored and self._made_by(restored.input[0], _QUANTIZE)
        return str(pair.input[0]) if pair else value

    def _made_by(self, value: str, operator: str) -> NodeProto | None:
        """Return the node that makes ``value``, if it has that operator."""
        maker = self._makers.get(value)
        return maker if maker is not None and maker.op_type == operator else None


class HalfGrafting:
    """An FP16 file and the FP32 file it was made from; a layer is a module of the network.

    Args:
        reference: the FP32 graph; it is not changed.
        candidate: the FP16 graph, which shows what values are in float16.

    Raises:
        UsageError: a float16 node is not in the reference.
    """

    def __init__(self, reference: ModelProto, candidate: ModelProto) -> None:
        self._reference = reference
        inferred = onnx.shape_inference.infer_shapes(candidate).graph
        halves = {
            value.name
            for value in (*inferred.value_info, *inferred.output)
            if value.type.tensor_type.elem_type == _HALF
        }
        reduced = {
            node.name
            for node in network_nodes(candidate.graph)
            if node.op_type != "Cast" and halves.intersection(node.output)
        }
        known = [node.name for node in network_nodes(reference.graph)]
        _require_same_network(reduced, known)
        self._members: dict[str, list[str]] = {}
        for name in known:
            if name in reduced:
                self._members.setdefault(name.rpartition(".")[0], []).append(name)
        self.layers = tuple(self._members)
        self._floats = float_values(reference)

    def with_exact(self, exact: Collection[str]) -> ModelProto:
        """Return the FP32 graph with float16 values rounded, except in the layers ``exact``."""
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
        with np.errstate(over="ignore"):
            for value, name in constants.items():
                halved = numpy_helper.to_array(tensors[value]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(halved.astype(np.float32), name))
        casts = {}
        for value, name in pairs.items():
            short = f"{name}.as_fp16"
            casts[value] = [
                onnx.helper.make_node("Cast", [value], [short], short, to=_HALF),
                onnx.helper.make_node("Cast", [short], [name], f"{name}.as_fp32", to=_SINGLE),
            ]
        insert_after(graph, casts)
        return with_heads(model, heads)


Grafting: TypeAlias = Int8Grafting | HalfGrafting


def head_values(model: ModelProto) -> list[str]:
    """Return the names of the values that hold the raw heads."""
    return [str(head_node(model.graph, name).output[0]) for name in HEAD_OUTPUTS]


def with_heads(model: ModelProto, heads: Sequence[str]) -> ModelProto:
    """Make the raw heads the only outputs of ``model``, in float32, and return the model."""
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


class HeadsMeter:
    """Measures the raw heads of graphs against a reference's, in ONNX Runtime.

    Args:
        reference: the FP32 graph.
        batches: graph inputs.
    """

    def __init__(self, reference: ModelProto, batches: Sequence[NDArray[Any]]) -> None:
        self._batches = batches
        self._exact = self._heads(with_heads(deepcopy(reference), head_values(reference)))

    def snr_db(self, model: ModelProto) -> float:
        """Return the worse head's signal-to-noise ratio in dB; -inf if a value is not finite.

        Args:
            model: a graph whose outputs are the heads, as :meth:`.HalfGrafting.with_exact` makes.
        """
        pooled = [TensorErrors()] * len(HEAD_OUTPUTS)
        for pair in zip(self._exact, self._heads(model), strict=True):
            found = [tensor_errors(*heads) for heads in zip(*pair, strict=True)]
            pooled = [before + each for before, each in zip(pooled, found, strict=True)]
        return min(each.snr_db for each in pooled)

    def _heads(self, model: ModelProto) -> list[list[NDArray[np.float32]]]:
        session = open_session(model)
        return [session.run(None, {INPUT_NAME: batch}) for batch in self._batches]

"""An index of an ONNX graph: producers and consumers of values, and which values are float.

In a file that effdet-deploy exported, the network is the part between preprocessing and heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.errors import ModelFileError
from effdet_deploy.onnxgraph.raw_heads import head_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from onnx import GraphProto, ModelProto, NodeProto

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_PREPROCESS = "preprocess."


def network_nodes(graph: GraphProto) -> list[NodeProto]:
    """Return the nodes of the network in graph order, up to the two nodes that make the heads.

    Raises:
        ModelFileError: the heads are not named as our exporter names them.
    """
    makers = producers(graph)
    wanted = [head_node(graph, name) for name in HEAD_OUTPUTS]
    found: set[str] = set()
    while wanted:
        node = wanted.pop()
        # A quantizer belongs to the convolution that reads it, whatever its name is.
        is_preprocessing = node.name.startswith(_PREPROCESS) and node.op_type not in QUANTIZERS
        if node.name in found or is_preprocessing:
            continue
        found.add(node.name)
        wanted += [makers[value] for value in node.input if value in makers]
    return [node for node in graph.node if node.name in found]


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """Map every computed value to the node that makes it."""
    return {value: node for node in graph.node for value in node.output if value}


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Map every value to the nodes that read it, in graph order."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for value in dict.fromkeys(node.input):
            found.setdefault(value, []).append(node)
    return found


def initializers(graph: GraphProto) -> dict[str, onnx.TensorProto]:
    """Map every constant to its tensor."""
    return {tensor.name: tensor for tensor in graph.initializer}


def insert_after(
    graph: GraphProto, added: Mapping[str, Iterable[NodeProto]], first: Iterable[NodeProto] = ()
) -> None:
    """Insert nodes right behind the node whose value they read, in place; order stays valid.

    Args:
        graph: a graph whose nodes are in a valid order.
        added: nodes by the value that they read; those that read graph inputs come first.
        first: nodes that only read constants; they come before all others.
    """
    ordered = list(first)
    for value in graph.input:
        ordered += added.get(value.name, ())
    for node in graph.node:
        ordered.append(node)
        for name in node.output:
            ordered += added.get(name, ())
    del graph.node[:]
    graph.node.extend(ordered)


def float_values(model: ModelProto) -> set[str]:
    """Return the names of all float32 values: inputs, constants and computed ones."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    described = (*inferred.input, *inferred.value_info, *inferred.output)
    floats = {
        value.name
        for value in described
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    return floats | {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }


def float_inputs(node: NodeProto, floats: set[str]) -> Iterator[tuple[int, str]]:
    """Yield index and name of the float32 inputs whose type follows the node's precision.

    The scales of a Resize are float32 in any precision.
    """
    for index, value in enumerate(node.input):
        if value in floats and not (node.op_type == "Resize" and index > 0):
            yield index, value


def require_opset(model: ModelProto, lowest: int, purpose: str) -> None:
    """Check the opset of ONNX's own operators.

    Raises:
        ModelFileError: the graph's opset is older than ``lowest``.
    """
    version = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if version < lowest:
        raise ModelFileError(
            f"{purpose} needs opset {lowest} or newer, but the graph has opset {version}.",
            f"Export the model with --opset {lowest} or above.",
        )

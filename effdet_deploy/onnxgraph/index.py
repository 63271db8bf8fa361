"""The part of an exported graph whose precision may change: between preprocessing and heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.errors import ModelFileError
from effdet_deploy.onnxgraph.heads import head_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import GraphProto, ModelProto, NodeProto

QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
_PREPROCESS = "preprocess."


def network_nodes(graph: GraphProto) -> list[NodeProto]:
    """Return the nodes of the network, in graph order, up to the two that make the heads.

    Raises:
        ModelFileError: the heads are not named as our exporter names them.
    """
    makers = producers(graph)
    wanted = [head_node(graph, name) for name in HEAD_OUTPUTS]
    found: set[str] = set()
    while wanted:
        node = wanted.pop()
        if node.name in found or _is_preprocessing(node):
            continue
        found.add(node.name)
        wanted += [makers[value] for value in node.input if value in makers]
    return [node for node in graph.node if node.name in found]


def _is_preprocessing(node: NodeProto) -> bool:
    """A quantiser belongs to the convolution that it feeds, whatever value it is named after."""
    return node.name.startswith(_PREPROCESS) and node.op_type not in QUANTISERS


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
        tensor.name for tensor in model.graph.initializer if is_float(tensor.data_type)
    }


def is_float(data_type: int) -> bool:
    """Tell whether an ONNX element type is float32."""
    return data_type == int(onnx.TensorProto.FLOAT)


def float_inputs(node: NodeProto, floats: set[str]) -> Iterator[tuple[int, str]]:
    """Yield index and name of each float32 input whose type follows the node's precision.

    The scales of a Resize are float32 whatever it resizes.
    """
    for index, value in enumerate(node.input):
        if value in floats and not (node.op_type == "Resize" and index > 0):
            yield index, value


def require_opset(model: ModelProto, lowest: int, purpose: str) -> None:
    """Check the opset of ONNX's own operators.

    Raises:
        ModelFileError: it is older than ``lowest``.
    """
    version = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if version < lowest:
        raise ModelFileError(
            f"{purpose} needs opset {lowest} or newer; the graph has {version}.",
            f"Export it with --opset {lowest} or above.",
        )

"""An ONNX graph with what the rules ask of it: types, shapes, constants, who feeds whom."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.inliner
from onnx import numpy_helper, shape_inference

from effdet_deploy.artifact.modelfile import require_content
from effdet_deploy.artifact.onnxfile import read_onnx
from effdet_deploy.errors import ModelFileError
from effdet_deploy.files import resolve_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Shape = tuple[int | str | None, ...]

ONNX_DOMAINS = ("", "ai.onnx")

# The values of these are known from a tensor's shape, whatever its values are.
_SHAPE_ONLY = ("Shape", "Size")


@dataclass(frozen=True)
class Node:
    """One operator: subgraphs and functions are flattened.

    Attributes:
        name: its name, or its operator and first output where it has none.
    """

    name: str
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def input(self, index: int) -> str:
        """Return the name of an input; empty where the node has none there."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True)
class Graph:
    """A graph and what is known of it.

    Attributes:
        opset: of ONNX's own domain.
        inputs, outputs: names of the graph's tensors.
        declared: the type each output declares, such as ``"FLOAT"``.
        types: the inferred type of each tensor where it is known.
        shapes: the inferred shape of each tensor where its rank is known.
        initializers: the tensors that the file holds.
        producer: the node behind each tensor.
        consumers: the nodes that read each tensor.
        known: every tensor that a node, an input or an initializer gives, in subgraphs too.
    """

    ir_version: int
    opset: int
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    declared: Mapping[str, str]
    types: Mapping[str, str]
    shapes: Mapping[str, Shape]
    initializers: Mapping[str, onnx.TensorProto]
    producer: Mapping[str, Node]
    consumers: Mapping[str, tuple[Node, ...]]
    known: frozenset[str]

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the value of a tensor that the file holds inside itself, else None."""
        tensor = self.initializers.get(name)
        if tensor is None:
            node = self.producer.get(name)
            return _constant_node(node) if node and node.operator == "Constant" else None
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        value: NDArray[Any] = numpy_helper.to_array(tensor)
        return value

    def is_weight(self, name: str) -> bool:
        """Say whether a tensor's value does not depend on the graph's inputs."""
        return not any(each in self.inputs for each in self._sources(name, through_shapes=True))

    def is_known_at_build(self, name: str) -> bool:
        """Say whether a tensor's value follows from weights and shapes alone."""
        return not any(each in self.inputs for each in self._sources(name, through_shapes=False))

    def behind(self, name: str) -> Iterator[Node]:
        """Yield every node that a tensor depends on, nearest first."""
        for each in self._sources(name, through_shapes=True):
            if each in self.producer:
                yield self.producer[each]

    def _sources(self, name: str, *, through_shapes: bool) -> Iterator[str]:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            yield current
            node = self.producer.get(current)
            if node and (through_shapes or node.operator not in _SHAPE_ONLY):
                waiting.extend(reversed([each for each in node.inputs if each]))


def read_graph(path: Path) -> Graph:
    """Read the ONNX model at ``path``; the content of external files is left where it is.

    Raises:
        ModelFileError: not an ONNX model, damaged, or naming files outside its directory.
    """
    require_content(path, "onnx")
    for location in read_onnx(path).external:
        resolve_inside(path.parent, location)
    try:
        model = onnx.load(str(path), load_external_data=False)
        return graph_of(_inferred(_inlined(model)))
    except (ValueError, onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ModelFileError(
            f"'{path}' cannot be analysed: {reason}.",
            "Check it with onnx.checker, or export it again.",
        ) from error


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infer types from the nodes alone: what the file declares may be wrong, and is checked."""
    bare = deepcopy(model)
    del bare.graph.value_info[:]
    for output in bare.graph.output:
        output.ClearField("type")
    inferred = shape_inference.infer_shapes(bare, data_prop=True)
    for output, declared in zip(inferred.graph.output, model.graph.output, strict=True):
        inferred.graph.value_info.append(output)
        output.CopyFrom(declared)
    return inferred


def graph_of(model: onnx.ModelProto) -> Graph:
    """Index a model whose value_info has been inferred."""
    subgraphs = tuple(_subgraphs(model.graph))
    nodes = tuple(_node(each) for graph in subgraphs for each in graph.node)
    initializers = {each.name: each for graph in subgraphs for each in graph.initializer}
    values = [each for graph in subgraphs for each in (*graph.input, *graph.value_info)]
    types = {each.name: _type_name(each.type) for each in values}
    types |= {name: _element_name(each.data_type) for name, each in initializers.items()}
    shapes = {each.name: _shape(each.type.tensor_type) for each in values if _has_shape(each)}
    shapes |= {name: tuple(each.dims) for name, each in initializers.items()}
    producer = {name: node for node in nodes for name in node.outputs if name}
    consumers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in dict.fromkeys(node.inputs):
            consumers.setdefault(name, []).append(node)
    return Graph(
        ir_version=model.ir_version,
        opset=max((e.version for e in model.opset_import if e.domain in ONNX_DOMAINS), default=1),
        nodes=nodes,
        inputs=tuple(each.name for each in model.graph.input if each.name not in initializers),
        outputs=tuple(each.name for each in model.graph.output),
        declared={each.name: _type_name(each.type) for each in model.graph.output},
        types={name: kind for name, kind in types.items() if kind},
        shapes=shapes,
        initializers=initializers,
        producer=producer,
        consumers={name: tuple(each) for name, each in consumers.items()},
        known=frozenset({*producer, *initializers, *(e.name for g in subgraphs for e in g.input)}),
    )


def _subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.output:
                    yield from _subgraphs(inner)


def _node(node: onnx.NodeProto) -> Node:
    attributes = {
        each.name: onnx.helper.get_attribute_value(each)
        for each in node.attribute
        if not each.ref_attr_name
    }
    text = {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in attributes.items()
    }
    first = next((each for each in node.output if each), "")
    name = node.name or f"{node.op_type} → {first}"
    return Node(name, node.op_type, node.domain, tuple(node.input), tuple(node.output), text)


def _constant_node(node: Node) -> NDArray[Any] | None:
    for name, value in node.attributes.items():
        if name == "value":
            array: NDArray[Any] = numpy_helper.to_array(value)
            return array
        if name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    return None


def _type_name(value: onnx.TypeProto) -> str:
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    if kind != "tensor_type":
        return str(kind).removesuffix("_type").upper()
    return _element_name(value.tensor_type.elem_type)


def _element_name(number: int) -> str:
    return str(onnx.TensorProto.DataType.Name(number)) if number else ""


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"))


def _shape(tensor: onnx.TypeProto.Tensor) -> Shape:
    return tuple(
        each.dim_value if each.HasField("dim_value") else (each.dim_param or None)
        for each in tensor.shape.dim
    )

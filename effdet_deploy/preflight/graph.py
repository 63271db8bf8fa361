"""An ONNX graph as the preflight reads it: types, shapes, constants, producers and consumers."""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import numpy_helper, shape_inference

from effdet_deploy.artifact.modelfile import require_content
from effdet_deploy.artifact.onnxfile import read_onnx
from effdet_deploy.errors import ModelFileError
from effdet_deploy.files import resolve_inside
from effdet_deploy.onnxgraph.index import consumers, initializers, producers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import NodeProto

    Shape = tuple[int | str | None, ...]

ONNX_DOMAINS = ("", "ai.onnx")

_UNREADABLE = (
    *(ValueError, RuntimeError, DecodeError),
    *(onnx.shape_inference.InferenceError, onnx.checker.ValidationError),
)
"""The errors of onnx for a damaged model."""
# The results of these operators depend on a tensor's shape only, not on its values.
_SHAPE_ONLY = ("Shape", "Size")


@dataclass(frozen=True)
class Graph:
    """A graph and its known properties; subgraphs and functions are flattened.

    Attributes:
        opset: the opset of ONNX's own domain.
        nodes: the nodes; unnamed ones are named after their operator and first output.
        inputs, outputs: names of the graph's tensors.
        declared: the type that every output declares, such as ``"FLOAT"``.
        types: the inferred types of tensors, where known.
        shapes: the inferred shapes of tensors, where the rank is known.
        initializers: the tensors that the file holds.
        producer: the node that makes a tensor.
        consumers: the nodes that read a tensor.
        known: all tensors that a node, an input or an initializer gives, also in subgraphs.
    """

    ir_version: int
    opset: int
    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    declared: Mapping[str, str]
    types: Mapping[str, str]
    shapes: Mapping[str, Shape]
    initializers: Mapping[str, onnx.TensorProto]
    producer: Mapping[str, NodeProto]
    consumers: Mapping[str, list[NodeProto]]
    known: frozenset[str]

    def nodes_of(self, *operators: str) -> Iterator[NodeProto]:
        """Yield the nodes that have one of these operators."""
        wanted = frozenset(operators)
        return (node for node in self.nodes if node.op_type in wanted)

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the value of a tensor if it is stored inside the file, else None."""
        tensor, node = self.initializers.get(name), self.producer.get(name)
        if tensor is None and node is not None and node.op_type == "Constant":
            tensor = attribute(node, "value")
            for key in ("value_float", "value_floats", "value_int", "value_ints"):
                if (value := attribute(node, key)) is not None:
                    return np.asarray(value, np.float32 if "float" in key else np.int64)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        array: NDArray[Any] = numpy_helper.to_array(tensor)
        return array

    def is_weight(self, name: str) -> bool:
        """Return whether a tensor's value is independent of the graph's inputs."""
        return not any(each in self.inputs for each in self._sources(name, through_shapes=True))

    def is_known_at_build(self, name: str) -> bool:
        """Return whether a tensor's value follows from weights and shapes alone."""
        return not any(each in self.inputs for each in self._sources(name, through_shapes=False))

    def behind(self, name: str) -> Iterator[NodeProto]:
        """Yield every node that a tensor depends on, nearest first."""
        for each in self._sources(name, through_shapes=True):
            if each in self.producer:
                yield self.producer[each]

    def place(self, name: str) -> str:
        """Return the name of the node that makes a tensor, or the tensor's name if no node does."""
        return str(self.producer[name].name) if name in self.producer else name

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
            if node is not None and (through_shapes or node.op_type not in _SHAPE_ONLY):
                waiting.extend(reversed([each for each in node.input if each]))


def input_of(node: NodeProto, index: int) -> str:
    """Return the name of a node's input; empty if the node lacks this input."""
    return node.input[index] if index < len(node.input) else ""


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute; ``default`` if the node lacks it."""
    for each in node.attribute:
        if each.name == name and not each.ref_attr_name:
            value = onnx.helper.get_attribute_value(each)
            return value.decode(errors="replace") if isinstance(value, bytes) else value
    return default


def read_graph(path: Path) -> Graph:
    """Read the ONNX model at ``path``, without the content of external files.

    Raises:
        ModelFileError: the file is not an ONNX model, is damaged, or names files outside its
            directory.
    """
    require_content(path, "onnx")
    for location in read_onnx(path).external:
        resolve_inside(path.parent, location)
    try:
        model = onnx.load(str(path), load_external_data=False)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        return graph_of(_inferred(model))
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ModelFileError(
            f"'{path}' cannot be analyzed: {reason}.",
            "Check it with onnx.checker, or export it again.",
        ) from error


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infer types from the nodes alone: declared types may be wrong, and a rule compares both."""
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
    """Index a model whose value_info has been inferred; unnamed nodes get names."""
    graphs = tuple(_subgraphs(model.graph))
    nodes = tuple(node for graph in graphs for node in graph.node)
    for node in nodes:
        node.name = node.name or f"{node.op_type} → {next(filter(None, node.output), '')}"
    constants = {name: each for graph in graphs for name, each in initializers(graph).items()}
    producer = {name: node for graph in graphs for name, node in producers(graph).items()}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for graph in graphs:
        for name, reading in consumers(graph).items():
            readers[name] += reading
    values = [each for graph in graphs for each in (*graph.input, *graph.value_info)]
    types = {each.name: _type_name(each.type) for each in values}
    types |= {name: _element_name(each.data_type) for name, each in constants.items()}
    shapes: dict[str, Shape] = {
        each.name: tuple(
            side.dim_value if side.HasField("dim_value") else (side.dim_param or None)
            for side in each.type.tensor_type.shape.dim
        )
        for each in values
        if each.type.tensor_type.HasField("shape")
    }
    return Graph(
        ir_version=model.ir_version,
        opset=max((e.version for e in model.opset_import if e.domain in ONNX_DOMAINS), default=1),
        nodes=nodes,
        inputs=tuple(each.name for each in model.graph.input if each.name not in constants),
        outputs=tuple(each.name for each in model.graph.output),
        declared={each.name: _type_name(each.type) for each in model.graph.output},
        types={name: kind for name, kind in types.items() if kind},
        shapes=shapes | {name: tuple(each.dims) for name, each in constants.items()},
        initializers=constants,
        producer=producer,
        consumers=readers,
        known=frozenset({*producer, *constants, *(e.name for g in graphs for e in g.input)}),
    )


def _subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for each in node.attribute:
            for inner in (each.g, *each.graphs):
                if inner.node or inner.output:
                    yield from _subgraphs(inner)


def _type_name(value: onnx.TypeProto) -> str:
    kind = value.WhichOneof("value")
    if kind == "tensor_type":
        return _element_name(value.tensor_type.elem_type)
    return str(kind or "").removesuffix("_type").upper()


def _element_name(number: int) -> str:
    return str(onnx.TensorProto.DataType.Name(number)) if number else ""

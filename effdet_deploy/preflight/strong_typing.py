"""Rules on types: TensorRT 11 and RTX compute exactly what the file says, and convert no types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from effdet_deploy.preflight.finding import Finding
from effdet_deploy.preflight.graph import ONNX_DOMAINS, input_of
from effdet_deploy.preflight.tables import QUANTIZED_TYPES, READ_AS_FLOAT, TENSOR_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import NodeProto

    from effdet_deploy.preflight.graph import Graph
    from effdet_deploy.preflight.tables import Target

# The operators that accept a uint8 tensor directly.
_TAKES_UINT8 = ("Cast", "CastLike", "Shape", "Size")
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
# NVIDIA's parser casts the bounds and scales of these operators; other runtimes refuse the file.
_LENIENT = ("Clip", "Resize")
_TYPE_WORDS = {"FLOAT": "FP32", "FLOAT16": "FP16", "BFLOAT16": "BF16", "DOUBLE": "FP64"}


def check_known_types(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield tensors whose type the target lacks, or reads as another type."""
    read_as_float = [name for name, kind in graph.types.items() if kind == READ_AS_FLOAT]
    if read_as_float:
        cause = (
            f"{len(read_as_float)} tensors are FP64, such as '{read_as_float[0]}', but "
            f"{target.title} "
            "computes them in FP32."
        )
        remedy = "Export the model in FP32."
        yield Finding("double", graph.place(read_as_float[0]), cause, remedy, "warning")
    for name, kind in graph.types.items():
        if kind not in TENSOR_TYPES and not _is_passed_on(graph, name):
            cause = f"Tensor '{name}' is of type {kind}, which {target.title} does not have."
            remedy = "Use FP32, FP16, INT32, INT64 or BOOL."
            yield Finding("tensor-type", graph.place(name), cause, remedy)


def _is_passed_on(graph: Graph, name: str) -> bool:
    """Return whether the node that makes a tensor only passes on the type of one of its inputs."""
    made = graph.producer.get(name)
    return made is not None and graph.types[name] in [graph.types.get(e) for e in made.input]


def check_uint8(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes other than casts that take a uint8 tensor."""
    for name, kind in graph.types.items():
        made = graph.producer.get(name)
        is_weight = name in graph.initializers or (made is not None and made.op_type == "Constant")
        if kind != "UINT8" or is_weight or _is_passed_on(graph, name):
            continue
        for node in graph.consumers.get(name, ()):
            is_output = node.op_type == "Identity" and node.output[0] in graph.outputs
            is_taken = made is None and (is_output or node.op_type in _TAKES_UINT8)
            if not is_taken and node.op_type not in _QUANTIZERS:
                cause = (
                    f"{node.op_type} takes the UINT8 tensor '{name}', but {target.title} has UINT8 "
                    "only as an input that goes straight into a Cast, or as an output."
                )
                remedy = (
                    "Compute in another type." if made else f"Put the Cast before {node.op_type}."
                )
                yield Finding("uint8", made.name if made else node.name, cause, remedy)


def check_operator_types(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes whose main input has a type that the target's operator does not take."""
    for node in graph.nodes_of(*target.operators):
        kind = graph.types.get(input_of(node, 0), "")
        allowed = target.operators[node.op_type]
        if kind not in TENSOR_TYPES - {"UINT8", READ_AS_FLOAT} or kind in allowed:
            continue
        quantized = kind in QUANTIZED_TYPES
        cause = (
            f"{node.op_type} takes the {_word(kind)} tensor '{input_of(node, 0)}'; {target.title} "
            + (
                "has this type only between QuantizeLinear and DequantizeLinear."
                if quantized
                else f"takes {', '.join(sorted(_word(each) for each in allowed))}."
            )
        )
        remedy = f"Put a {'DequantizeLinear' if quantized else 'Cast'} before {node.op_type}."
        yield Finding(
            "operator-type", node.name, cause, remedy, "warning" if quantized else "error"
        )


def check_onnx_types(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes with an input whose type ONNX itself does not allow there."""
    for node in graph.nodes:
        if node.op_type in (*_QUANTIZERS, *_LENIENT):
            continue
        for index, (name, formal) in enumerate(_formals(node, graph.opset)):
            kind = graph.types.get(name, "")
            allowed = target.operators.get(node.op_type, frozenset({kind}))
            already_reported = index == 0 and kind not in allowed | QUANTIZED_TYPES
            if not kind or already_reported or f"tensor({kind.lower()})" in formal.types:
                continue
            cause = (
                f"{node.op_type} takes the {_word(kind)} tensor '{name}', which opset "
                f"{graph.opset} of ONNX does not allow; {target.title} refuses the model."
            )
            yield Finding("onnx-type", node.name, cause, f"Put a Cast before {node.op_type}.")


def check_same_types(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes whose inputs have different types, although ONNX requires a single type."""
    for node in graph.nodes:
        if node.op_type in _QUANTIZERS:
            continue
        # ONNX's own definition of an operator says which inputs have the same type.
        groups: dict[str, list[str]] = {}
        for name, formal in _formals(node, graph.opset):
            if formal.is_homogeneous and "(" not in formal.type_str and name in graph.types:
                groups.setdefault(formal.type_str, []).append(name)
        for names in groups.values():
            if len({graph.types[name] for name in names}) > 1:
                listed = ", ".join(f"'{name}' {_word(graph.types[name])}" for name in names)
                cause = f"{node.op_type} mixes {listed}; {target.title} does not convert types."
                remedy = "Cast its inputs to one type."
                yield Finding(
                    "strong-typing",
                    node.name,
                    cause,
                    remedy,
                    "warning" if node.op_type in _LENIENT else "error",
                )


def _formals(
    node: NodeProto, opset: int
) -> Iterator[tuple[str, onnx.defs.OpSchema.FormalParameter]]:
    """Yield a node's inputs with their definitions; the last definition may apply to several."""
    newest = min(opset, onnx.defs.onnx_opset_version())
    try:
        inputs = onnx.defs.get_schema(node.op_type, max_inclusive_version=newest).inputs
    except onnx.defs.SchemaError:
        return
    if inputs and node.domain in ONNX_DOMAINS:
        for index, name in enumerate(node.input):
            if name:
                yield name, inputs[min(index, len(inputs) - 1)]


def check_output_types(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield outputs that declare another type than their node gives; the node's type counts."""
    for name, declared in graph.declared.items():
        given = graph.types.get(name, declared)
        if declared and given != declared:
            cause = (
                f"Output '{name}' is declared {_word(declared)} but is {_word(given)}; "
                f"{target.title} accepts the file and gives {_word(given)}."
            )
            remedy = f"End with a Cast to {_word(declared)}."
            yield Finding("output-type", graph.place(name), cause, remedy, "warning")


def _word(kind: str) -> str:
    return _TYPE_WORDS.get(kind, kind)


RULES = (
    check_known_types,
    check_uint8,
    check_operator_types,
    check_onnx_types,
    check_same_types,
    check_output_types,
)

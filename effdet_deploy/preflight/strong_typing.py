"""Rules on types: TensorRT 11 and RTX compute exactly what the file says, and convert nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from effdet_deploy.preflight.finding import Finding
from effdet_deploy.preflight.graph import ONNX_DOMAINS
from effdet_deploy.preflight.tables import QUANTISED_TYPES, READ_AS_FLOAT, TENSOR_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effdet_deploy.preflight.graph import Graph, Node
    from effdet_deploy.preflight.tables import Target

# What a uint8 tensor may go into before it is anything else.
_TAKES_UINT8 = ("Cast", "CastLike", "Shape", "Size")
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
# NVIDIA's parser casts the bounds and the scales of these itself; other runtimes refuse them.
_LENIENT = ("Clip", "Resize")
_TYPE_WORDS = {"FLOAT": "FP32", "FLOAT16": "FP16", "BFLOAT16": "BF16", "DOUBLE": "FP64"}


def check_known_types(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield tensors of types that the target does not have, or reads as another."""
    read_as_float = []
    for name, kind in graph.types.items():
        if kind == READ_AS_FLOAT:
            read_as_float.append(name)
        elif kind not in TENSOR_TYPES and not _is_passed_on(graph, name):
            yield Finding(
                "tensor-type",
                _place(graph, name),
                f"Tensor '{name}' is of type {kind}, which {target.title} does not have.",
                "Use FP32, FP16, INT32, INT64 or BOOL.",
            )
    if read_as_float:
        yield Finding(
            "double",
            _place(graph, read_as_float[0]),
            f"{len(read_as_float)} tensors are FP64, such as '{read_as_float[0]}'; {target.title} "
            "computes them in FP32.",
            "Export the model in FP32.",
            "warning",
        )


def _is_passed_on(graph: Graph, name: str) -> bool:
    """Say whether a tensor has its type from an input of its node, where the cause lies."""
    made = graph.producer.get(name)
    return made is not None and graph.types[name] in [graph.types.get(e) for e in made.inputs]


def _place(graph: Graph, name: str) -> str:
    return graph.producer[name].name if name in graph.producer else name


def check_uint8(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield each node that takes a uint8 tensor other than to cast it."""
    for name, kind in graph.types.items():
        made = graph.producer.get(name)
        is_weight = name in graph.initializers or (made and made.operator == "Constant")
        if kind != "UINT8" or is_weight or _is_passed_on(graph, name):
            continue
        for node in graph.consumers.get(name, ()):
            if node.operator not in _QUANTISERS and (made or not _may_take_uint8(graph, node)):
                yield Finding(
                    "uint8",
                    made.name if made else node.name,
                    f"{node.operator} takes the UINT8 tensor '{name}'; {target.title} has UINT8 "
                    "only as an input that goes straight into a Cast, or as an output.",
                    "Compute in another type." if made else f"Put the Cast before {node.operator}.",
                )


def _may_take_uint8(graph: Graph, node: Node) -> bool:
    passes_on = node.operator == "Identity" and node.outputs[0] in graph.outputs
    return node.operator in _TAKES_UINT8 or passes_on


def check_operator_types(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes whose main input has a type that the target's operator does not take."""
    for node in graph.nodes:
        kind = graph.types.get(node.input(0), "")
        allowed = target.operators.get(node.operator)
        if not allowed or kind not in TENSOR_TYPES - {"UINT8", READ_AS_FLOAT} or kind in allowed:
            continue
        quantised = kind in QUANTISED_TYPES
        yield Finding(
            "operator-type",
            node.name,
            f"{node.operator} takes the {_word(kind)} tensor '{node.input(0)}'; {target.title} "
            + (
                "has that type only between QuantizeLinear and DequantizeLinear."
                if quantised
                else f"takes {', '.join(sorted(_word(each) for each in allowed))}."
            ),
            "Dequantise before it." if quantised else "Cast before it.",
            "warning" if quantised else "error",
        )


def check_onnx_types(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes with an input of a type that ONNX itself does not allow there."""
    for node in graph.nodes:
        if node.operator in (*_QUANTISERS, *_LENIENT):
            continue
        for index, (name, formal) in enumerate(_formals(node, graph.opset)):
            kind = graph.types.get(name, "")
            allowed = target.operators.get(node.operator, frozenset({kind}))
            said_above = index == 0 and kind not in allowed | QUANTISED_TYPES
            if not kind or said_above or _onnx_type(kind) in formal.types:
                continue
            yield Finding(
                "onnx-type",
                node.name,
                f"{node.operator} takes the {_word(kind)} tensor '{name}', which opset "
                f"{graph.opset} of ONNX does not allow; {target.title} refuses it.",
                "Cast before it.",
            )


def _onnx_type(kind: str) -> str:
    return f"tensor({kind.lower()})"


def check_same_types(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes whose inputs have different types where ONNX and strong typing want one."""
    for node in graph.nodes:
        for group in _groups(node, graph.opset):
            named = [(name, graph.types[name]) for name in group if name in graph.types]
            kinds = dict.fromkeys(kind for _, kind in named)
            if len(kinds) > 1:
                listed = ", ".join(f"'{name}' {_word(kind)}" for name, kind in named)
                yield Finding(
                    "strong-typing",
                    node.name,
                    f"{node.operator} mixes types: {listed}; {target.title} converts nothing.",
                    "Cast its inputs to one type.",
                    "warning" if node.operator in _LENIENT else "error",
                )


def _groups(node: Node, opset: int) -> Iterator[list[str]]:
    """Yield the inputs that ONNX's own definition of the operator gives one type."""
    if node.operator in _QUANTISERS:
        return
    groups: dict[str, list[str]] = {}
    for name, formal in _formals(node, opset):
        if formal.is_homogeneous and "(" not in formal.type_str:
            groups.setdefault(formal.type_str, []).append(name)
    yield from groups.values()


def _formals(node: Node, opset: int) -> Iterator[tuple[str, onnx.defs.OpSchema.FormalParameter]]:
    """Pair each input that is given with its definition; the last may stand for many."""
    schema = _schema(node.operator, opset) if node.domain in ONNX_DOMAINS else None
    if schema is None or not schema.inputs:
        return
    for index, name in enumerate(node.inputs):
        if name:
            yield name, schema.inputs[min(index, len(schema.inputs) - 1)]


def _schema(operator: str, opset: int) -> onnx.defs.OpSchema | None:
    newest = onnx.defs.onnx_opset_version()
    try:
        return onnx.defs.get_schema(operator, max_inclusive_version=min(opset, newest))
    except onnx.defs.SchemaError:
        return None


def check_output_types(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield outputs that declare another type than their node gives; the node's is what comes."""
    for name, declared in graph.declared.items():
        given = graph.types.get(name, declared)
        if declared and given != declared:
            yield Finding(
                "output-type",
                _place(graph, name),
                f"Output '{name}' is declared {_word(declared)} but is {_word(given)}; "
                f"{target.title} takes the file and gives {_word(given)}.",
                f"End with a Cast to {_word(declared)}.",
                "warning",
            )


def _word(kind: str) -> str:
    return _TYPE_WORDS.get(kind, kind)

"""Names that say where in the model a node comes from: ``fpn.cell.1.fnode.3.combine.add``."""

from __future__ import annotations

import ast
import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"
_WRAPPERS = re.compile(r"^(?:heads(?:\.network)?|network)(?:\.|$)")
"""Modules that only hold the network; a user knows the modules inside by their own names."""


def name_nodes(graph: ir.Graph) -> None:
    """Name every node of a freshly traced graph by module path and role, in place.

    The role is the operator in lower case; a module that uses one several times numbers them.
    """
    taken: Counter[str] = Counter()
    for node in graph:
        path = _module_path(node.metadata_props.get(_SCOPES, ""))
        node.name = _numbered(".".join(filter(None, (path, node.op_type.lower()))), taken)


def _module_path(scopes: str) -> str:
    """Return the path of the module that a node was traced in; the last scope is the operation."""
    names = ast.literal_eval(scopes) if scopes else []
    return _WRAPPERS.sub("", str(names[-2])) if len(names) > 1 else ""


def _numbered(name: str, taken: Counter[str]) -> str:
    taken[name] += 1
    return name if taken[name] == 1 else f"{name}_{taken[name] - 1}"


def name_values(graph: onnx.GraphProto) -> None:
    """Give every node's first output the node's name, in place; graph outputs keep theirs.

    Nodes that a simplifier added are named after the value they make; further outputs of a node
    are numbered.
    """
    fixed = {value.name for value in (*graph.input, *graph.output)}
    taken = Counter(node.name for node in graph.node if node.name)
    renamed: dict[str, str] = {}
    for node in graph.node:
        if not node.name:
            node.name = _numbered(f"graph.{node.op_type.lower()}", taken)
        for index, value in enumerate(node.output):
            if value and value not in fixed:
                renamed[value] = node.name if index == 0 else f"{node.name}:{index}"
    _rename_constants(graph, fixed, renamed)
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [renamed.get(value, value) for value in values]
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)


def _rename_constants(graph: onnx.GraphProto, fixed: set[str], renamed: dict[str, str]) -> None:
    """Name each initializer after its first use, so that names do not depend on the tracer."""
    constants = {tensor.name for tensor in graph.initializer} - fixed
    taken: Counter[str] = Counter(renamed.values())
    for node in graph.node:
        for index, value in enumerate(node.input):
            if value in constants and value not in renamed:
                role = _CONSTANT_ROLES.get((node.op_type, index), f"constant_{index}")
                renamed[value] = _numbered(f"{node.name}.{role}", taken)


_CONSTANT_ROLES = {
    (operator, index): role
    for operator in ("Conv", "Gemm")
    for index, role in ((1, "weight"), (2, "bias"))
}

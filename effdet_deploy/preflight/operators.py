"""Rules on versions, operators, their attributes and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effdet_deploy.preflight.finding import Finding
from effdet_deploy.preflight.graph import ONNX_DOMAINS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effdet_deploy.preflight.graph import Graph, Node
    from effdet_deploy.preflight.tables import Target

_SPATIAL = ("AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool")
# The shape of what these give depends on the values they are given.
_DATA_DEPENDENT = ("Compress", "NonMaxSuppression", "NonZero", "Unique")
_TRAINING_INPUT = 2
_DEFAULT_OPSET = 20
_PLUGIN_TYPES = {"FLOAT", "FLOAT16"}
_ONNX_RUNTIME_DOMAIN = "com.microsoft"


def check_versions(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield what is wrong with the opset and the IR version.

    The parser reads any version and then takes operators for those it knows, hence warnings.
    """
    low, high = target.opsets
    if not low <= graph.opset <= high:
        yield Finding(
            "opset",
            "",
            f"The model has opset {graph.opset}; {target.title} takes {low} to {high}.",
            f"Export it again with --opset {min(high, _DEFAULT_OPSET)}.",
            "warning",
        )
    if graph.ir_version > target.ir_version:
        yield Finding(
            "ir-version",
            "",
            f"The model has IR version {graph.ir_version}; {target.title} takes up to "
            f"{target.ir_version}.",
            "Save it with an older release of the onnx package.",
            "warning",
        )


def check_operators(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield each node whose operator the target does not have."""
    for node in graph.nodes:
        if node.operator in target.plugins:
            yield from _plugin(graph, node, target)
        elif node.operator not in target.operators:
            yield _absent(node, target)
        elif node.domain not in ONNX_DOMAINS:
            yield Finding(
                "domain",
                node.name,
                f"{target.title} ignores the domain '{node.domain}' and reads this node as ONNX's "
                f"own {node.operator}.",
                "Use the operator of ONNX itself.",
                "warning",
            )


def _absent(node: Node, target: Target) -> Finding:
    own = node.domain in ONNX_DOMAINS
    full = node.operator if own else f"{node.domain}::{node.operator}"
    plugin = node.operator in target.plugin_attributes
    kind = "plugin" if plugin else "operator" if own else "custom operator"
    return Finding(
        "plugin" if plugin else "operator",
        node.name,
        f"{target.title} does not have the {kind} {full}.",
        target.remedies.get(node.operator, _general_remedy(node)),
    )


def _general_remedy(node: Node) -> str:
    if node.domain.startswith(_ONNX_RUNTIME_DOMAIN):
        return "Give it the file as it was exported, not one that ONNX Runtime has optimised."
    return "Export the model without it."


def _plugin(graph: Graph, node: Node, target: Target) -> Iterator[Finding]:
    missing = [
        each for each in target.plugin_attributes[node.operator] if each not in node.attributes
    ]
    if missing:
        yield Finding(
            "plugin",
            node.name,
            f"{node.operator} lacks the attributes {', '.join(missing)}.",
            "Give the node every attribute of the plugin.",
        )
    kinds = {name: graph.types[name] for name in node.inputs if name in graph.types}
    if len({*kinds.values()}) > 1 or not {*kinds.values()} <= _PLUGIN_TYPES:
        listed = ", ".join(f"'{name}' {kind}" for name, kind in kinds.items())
        yield Finding(
            "plugin",
            node.name,
            f"{node.operator} takes inputs of one type, FLOAT or FLOAT16, and has {listed}.",
            "Cast its inputs to one type.",
        )


def check_attributes(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield each attribute whose value the target does not take."""
    for node in graph.nodes:
        for name, allowed in target.attributes.get(node.operator, {}).items():
            value = node.attributes.get(name)
            wrong = [each for each in _elements(value) if each not in allowed]
            if wrong:
                listed = ", ".join(str(each) for each in allowed)
                yield Finding(
                    "attribute",
                    node.name,
                    f"{node.operator} has {name} {wrong[0]}; {target.title} takes {listed}.",
                    f"Export it with {name} {allowed[0]}.",
                )


def _elements(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def check_arity(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes with more outputs than taken, or inputs that must be known at build time."""
    for node in graph.nodes:
        most = target.outputs.get(node.operator)
        if most is not None and len(node.outputs) > most:
            yield Finding(
                "outputs",
                node.name,
                f"{node.operator} has {len(node.outputs)} outputs; {target.title} gives {most}.",
                f"Remove the output '{node.outputs[most]}'.",
            )
        for index in target.constants.get(node.operator, ()):
            given = node.input(index)
            if given and not graph.is_known_at_build(given):
                yield Finding(
                    "constant-input",
                    node.name,
                    f"Input '{given}' of {node.operator} depends on the graph's inputs; "
                    f"{target.title} must know it when it builds.",
                    "Make it a constant of the graph.",
                )


def check_inputs(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes that read a tensor which nothing gives."""
    for node in graph.nodes:
        for name in node.inputs:
            if name and name not in graph.known:
                yield Finding(
                    "undefined-input",
                    node.name,
                    f"{node.operator} reads the tensor '{name}', which nothing in the model gives; "
                    f"{target.title} refuses it.",
                    "The file is damaged: export it again.",
                )


def check_limits(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes beyond a limit: K of TopK, spatial dimensions, rank, training mode."""
    for node in graph.nodes:
        if node.operator == "TopK":
            yield from _top_k(graph, node, target)
        elif node.operator in _SPATIAL:
            yield from _spatial(graph, node, target)
        elif node.operator == "Dropout":
            yield from _dropout(graph, node, target)
    for name, shape in graph.shapes.items():
        if len(shape) > target.max_rank:
            yield Finding(
                "rank",
                graph.producer[name].name if name in graph.producer else name,
                f"Tensor '{name}' has {len(shape)} dimensions; {target.title} takes up to "
                f"{target.max_rank}.",
                "Merge dimensions with a Reshape.",
            )


def _top_k(graph: Graph, node: Node, target: Target) -> Iterator[Finding]:
    value = graph.constant(node.input(1)) if node.input(1) else node.attributes.get("k")
    if value is None:
        return
    count = int(max(_elements(value) if isinstance(value, int) else value.reshape(-1)))
    if count > target.max_topk:
        yield Finding(
            "topk",
            node.name,
            f"TopK has K {count}; {target.title} takes at most {target.max_topk}.",
            f"Export it again with --candidates {target.max_topk} or fewer.",
        )


def _spatial(graph: Graph, node: Node, target: Target) -> Iterator[Finding]:
    shape = graph.shapes.get(node.input(0))
    if shape is not None and len(shape) - 2 > target.max_spatial_rank:
        yield Finding(
            "rank",
            node.name,
            f"{node.operator} has {len(shape) - 2} spatial dimensions; {target.title} takes up to "
            f"{target.max_spatial_rank}.",
            "Split it into operators of fewer dimensions.",
        )


def _dropout(graph: Graph, node: Node, target: Target) -> Iterator[Finding]:
    value = graph.constant(node.input(_TRAINING_INPUT))
    if value is not None and value.any():
        yield Finding(
            "attribute",
            node.name,
            f"Dropout is in training mode, which {target.title} does not have.",
            "Call eval() on the model before it is exported.",
        )


def check_output_shapes(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield each output whose size is known only after the graph has run."""
    for name in graph.outputs:
        source = next(
            (e for e in graph.behind(name) if e.operator in _DATA_DEPENDENT and _open(graph, name)),
            None,
        )
        if source is not None and source.operator in target.operators:
            yield Finding(
                "data-dependent-shape",
                source.name,
                f"The shape of output '{name}' depends on what {source.operator} finds, so no "
                "buffer and no CUDA graph can be laid out for it.",
                target.remedies.get(source.operator, "Pad the output to a fixed number of rows."),
                "warning",
            )


def _open(graph: Graph, name: str) -> bool:
    """Say whether a dimension of a tensor is neither fixed nor that of an input, as a batch is."""
    of_inputs = {each for given in graph.inputs for each in graph.shapes.get(given, ())}
    shape = graph.shapes.get(name)
    return shape is None or any(
        not isinstance(each, int) and (each is None or each not in of_inputs) for each in shape
    )

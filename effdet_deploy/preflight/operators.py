"""Rules on versions, operators, their attributes and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.preflight.finding import Finding
from effdet_deploy.preflight.graph import ONNX_DOMAINS, attribute, input_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effdet_deploy.preflight.graph import Graph
    from effdet_deploy.preflight.tables import Target

_SPATIAL = ("AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool")
# The shapes of these operators' outputs depend on the values of their inputs.
_DATA_DEPENDENT = ("Compress", "NonMaxSuppression", "NonZero", "Unique")
_TRAINING_INPUT = 2
_DEFAULT_OPSET = 20
_PLUGIN_TYPES = {"FLOAT", "FLOAT16"}
_ONNX_RUNTIME_DOMAIN = "com.microsoft"


def check_versions(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield problems with the opset and the IR version.

    The parser reads a file of any version as if it knew the version, so these are warnings.
    """
    low, high = target.opsets
    if not low <= graph.opset <= high:
        cause = f"The model has opset {graph.opset}, but {target.title} takes {low} to {high}."
        remedy = f"Export it again with --opset {min(high, _DEFAULT_OPSET)}."
        yield Finding("opset", "", cause, remedy, "warning")
    if graph.ir_version > target.ir_version:
        cause = (
            f"The model has IR version {graph.ir_version}, but {target.title} takes up to "
            f"{target.ir_version}."
        )
        remedy = "Save it with an older release of the onnx package."
        yield Finding("ir-version", "", cause, remedy, "warning")


def check_operators(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes whose operator the target lacks, or reads as another operator."""
    for node in graph.nodes:
        own = node.domain in ONNX_DOMAINS
        taken = node.op_type in target.operators
        if node.op_type in target.plugins or (taken and own):
            continue
        if taken:
            cause = (
                f"{target.title} ignores the domain '{node.domain}' and reads this node as "
                f"ONNX's own {node.op_type}."
            )
            remedy = "Use the operator of ONNX itself."
            yield Finding("domain", node.name, cause, remedy, "warning")
            continue
        is_plugin = node.op_type in target.plugin_attributes
        kind = "plugin" if is_plugin else "operator" if own else "custom operator"
        name = node.op_type if own else f"{node.domain}::{node.op_type}"
        remedy = f"Export the model without this {kind}."
        if node.domain.startswith(_ONNX_RUNTIME_DOMAIN):
            remedy = "Use the file as it was exported, not a file that ONNX Runtime has optimized."
        cause = f"{target.title} does not have the {kind} {name}."
        remedy = target.remedies.get(node.op_type, remedy)
        yield Finding("plugin" if is_plugin else "operator", node.name, cause, remedy)


def check_plugins(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield plugin nodes that lack attributes, or whose inputs have different types."""
    for node in graph.nodes_of(*target.plugins):
        wanted = target.plugin_attributes[node.op_type]
        if missing := [each for each in wanted if attribute(node, each) is None]:
            cause = f"{node.op_type} lacks the attributes {', '.join(missing)}."
            remedy = "Give the node every attribute of the plugin."
            yield Finding("plugin", node.name, cause, remedy)
        kinds = {name: graph.types[name] for name in node.input if name in graph.types}
        if len({*kinds.values()}) > 1 or not {*kinds.values()} <= _PLUGIN_TYPES:
            listed = ", ".join(f"'{name}' {kind}" for name, kind in kinds.items())
            cause = f"{node.op_type} takes inputs of one type, FLOAT or FLOAT16, but has {listed}."
            yield Finding("plugin", node.name, cause, "Cast its inputs to one type.")


def check_attributes(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield attributes whose value the target does not accept."""
    for node in graph.nodes_of(*target.attributes):
        for name, allowed in target.attributes[node.op_type].items():
            value: Any = attribute(node, name, ())
            elements = value if isinstance(value, list | tuple) else (value,)
            if wrong := [each for each in elements if each not in allowed]:
                listed = ", ".join(str(each) for each in allowed)
                cause = (
                    f"{node.op_type} has {name} {wrong[0]}, but {target.title} takes only {listed}."
                )
                remedy = f"Export the model with {name} {allowed[0]}."
                yield Finding("attribute", node.name, cause, remedy)


def check_arity(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes with too many outputs, or with inputs that must be known at build time."""
    for node in graph.nodes:
        most = target.outputs.get(node.op_type)
        if most is not None and len(node.output) > most:
            cause = (
                f"{node.op_type} has {len(node.output)} outputs, but {target.title} gives only "
                f"{most}."
            )
            yield Finding("outputs", node.name, cause, f"Remove the output '{node.output[most]}'.")
        for index in target.constants.get(node.op_type, ()):
            given = input_of(node, index)
            if given and not graph.is_known_at_build(given):
                cause = (
                    f"Input '{given}' of {node.op_type} depends on the graph's inputs, but "
                    f"{target.title} must know it when the engine is built."
                )
                remedy = "Make this input a constant of the graph."
                yield Finding("constant-input", node.name, cause, remedy)


def check_inputs(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield nodes that read a tensor which no node gives."""
    for node in graph.nodes:
        for name in node.input:
            if name and name not in graph.known:
                cause = (
                    f"{node.op_type} reads the tensor '{name}', which no part of the model gives; "
                    f"{target.title} refuses the model."
                )
                remedy = "The file is damaged: export it again."
                yield Finding("undefined-input", node.name, cause, remedy)


def check_top_k(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield TopK nodes whose K is too large."""
    for node in graph.nodes_of("TopK"):
        # Before opset 10, K was an attribute.
        given = input_of(node, 1)
        value: Any = graph.constant(given) if given else attribute(node, "k")
        if value is not None and (count := int(np.max(value))) > target.max_topk:
            cause = f"TopK has K {count}, but {target.title} takes at most {target.max_topk}."
            remedy = f"Export it again with --candidates {target.max_topk} or fewer."
            yield Finding("topk", node.name, cause, remedy)


def check_ranks(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield convolutions, poolings and tensors with too many dimensions."""
    for node in graph.nodes_of(*_SPATIAL):
        spatial = len(graph.shapes.get(input_of(node, 0), ())) - 2
        if spatial > target.max_spatial_rank:
            cause = (
                f"{node.op_type} has {spatial} spatial dimensions, but {target.title} takes up to "
                f"{target.max_spatial_rank}."
            )
            yield Finding(
                "rank", node.name, cause, "Split the node into operators with fewer dimensions."
            )
    for name, shape in graph.shapes.items():
        if len(shape) > target.max_rank:
            cause = (
                f"Tensor '{name}' has {len(shape)} dimensions, but {target.title} takes up to "
                f"{target.max_rank}."
            )
            yield Finding("rank", graph.place(name), cause, "Merge dimensions with a Reshape.")


def check_training(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield Dropout nodes in training mode."""
    for node in graph.nodes_of("Dropout"):
        value = graph.constant(input_of(node, _TRAINING_INPUT))
        if value is not None and value.any():
            cause = f"Dropout is in training mode, which {target.title} does not have."
            remedy = "Call eval() on the model before the export."
            yield Finding("attribute", node.name, cause, remedy)


def check_output_shapes(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield outputs whose size is known only after the graph has run."""
    # A dimension that an input has too, such as the batch, is known before the run.
    of_inputs = {each for given in graph.inputs for each in graph.shapes.get(given, ())} - {None}
    for name in graph.outputs:
        shape = graph.shapes.get(name, (None,))
        if all(isinstance(each, int) or each in of_inputs for each in shape):
            continue
        source = next((e for e in graph.behind(name) if e.op_type in _DATA_DEPENDENT), None)
        if source is not None and source.op_type in target.operators:
            cause = (
                f"The shape of output '{name}' depends on what {source.op_type} finds, so no "
                "buffer and no CUDA graph can be laid out for it."
            )
            remedy = target.remedies.get(
                source.op_type, "Pad the output to a fixed number of rows."
            )
            yield Finding("data-dependent-shape", source.name, cause, remedy, "warning")


RULES = (
    check_versions,
    check_operators,
    check_plugins,
    check_attributes,
    check_arity,
    check_inputs,
    check_top_k,
    check_ranks,
    check_training,
    check_output_shapes,
)

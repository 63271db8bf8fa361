"""Rules on QuantizeLinear and DequantizeLinear.

What TensorRT takes is symmetric INT8 with one scale per activation tensor and one per output
channel of a weight; what else parses often runs in floating point without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.preflight.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effdet_deploy.preflight.graph import Graph, Node
    from effdet_deploy.preflight.tables import Target

SMALLEST_FP16_SCALE = 2.0**-20
"""Below it an FP16 scale is subnormal with four significant bits or fewer."""

_OUTPUT_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}
_ZERO_POINT_INPUT = 2
_BLOCK_AXES = 2
_SIGNED = ("INT8", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1")


def check_quantisers(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield what is wrong with single QuantizeLinear and DequantizeLinear nodes."""
    for node in graph.nodes:
        if node.operator in ("QuantizeLinear", "DequantizeLinear"):
            kind = _quantised_type(graph, node)
            if kind in (*_SIGNED, "UINT8", ""):
                yield from _zero_point(graph, node, kind, target)
            else:
                yield _wrong_type(graph, node, kind, target)
            yield from _scale(graph, node, target)
            if node.attributes.get("block_size"):
                yield from _blocks(graph, node, target)
            else:
                yield from _per_channel_activation(graph, node, target)


def _quantised_type(graph: Graph, node: Node) -> str:
    name = node.input(0) if node.operator == "DequantizeLinear" else node.outputs[0]
    return graph.types.get(name, "")


def _wrong_type(graph: Graph, node: Node, kind: str, target: Target) -> Finding:
    is_bias = any(
        consumer.operator in _OUTPUT_CHANNEL_AXIS and node.outputs[0] in consumer.inputs[2:]
        for consumer in graph.consumers.get(node.outputs[0], ())
    )
    return Finding(
        "quantised-bias" if is_bias else "quantised-type",
        node.name,
        f"{node.operator} quantises {'a bias ' if is_bias else ''}to {kind}; {target.title} "
        "takes INT8.",
        "Leave the bias in floating point." if is_bias else "Quantise to INT8.",
    )


def _zero_point(graph: Graph, node: Node, kind: str, target: Target) -> Iterator[Finding]:
    value = graph.constant(node.input(_ZERO_POINT_INPUT))
    if value is not None and value.any():
        yield Finding(
            "zero-point",
            node.name,
            f"{node.operator} has the zero point {value.reshape(-1)[value.reshape(-1) != 0][0]}; "
            f"{target.title} takes 0 only.",
            "Quantise symmetrically.",
        )
    elif kind == "UINT8":
        yield Finding(
            "unsigned",
            node.name,
            f"{node.operator} quantises to UINT8; {target.title} takes it for INT8, so values "
            "above 127 are lost.",
            "Quantise to INT8 with an explicit zero point 0 of that type.",
            "warning",
        )


def _scale(graph: Graph, node: Node, target: Target) -> Iterator[Finding]:
    value = graph.constant(node.input(1))
    if value is None or value.size == 0:
        return
    wrong = value.reshape(-1)[~(value.reshape(-1) > 0)]
    if wrong.size:
        yield Finding(
            "scale",
            node.name,
            f"{node.operator} has the scale {wrong[0]}; {target.title} takes positive scales only.",
            "Calibrate again; give channels without values a small scale.",
        )
    elif not np.isfinite(value).all():
        yield Finding(
            "scale",
            node.name,
            f"{node.operator} has an infinite scale, so everything becomes zero.",
            "Calibrate again.",
            "warning",
        )
    elif value.dtype == np.float16 and value.min() < SMALLEST_FP16_SCALE:
        yield Finding(
            "scale",
            node.name,
            f"{node.operator} has the FP16 scale {value.min():.3g}, below "
            f"{SMALLEST_FP16_SCALE:.3g}, where FP16 keeps a few bits only.",
            "Raise the scale to 2^-20 and round it to FP16 before quantising with it.",
            "warning",
        )


def _blocks(graph: Graph, node: Node, target: Target) -> Iterator[Finding]:
    rank = len(graph.shapes.get(node.input(0), ()))
    axis = node.attributes.get("axis", 1)
    if rank and axis % rank < rank - _BLOCK_AXES:
        yield Finding(
            "blocks",
            node.name,
            f"{node.operator} has blocks along axis {axis} of {rank}; {target.title} takes blocks "
            "along the last two only.",
            "Use one scale for the whole tensor.",
        )


def _per_channel_activation(graph: Graph, node: Node, target: Target) -> Iterator[Finding]:
    if node.operator != "QuantizeLinear" or graph.is_weight(node.input(0)):
        return
    shape = graph.shapes.get(node.input(1), ())
    if any(each != 1 for each in shape):
        yield Finding(
            "per-channel-activation",
            node.name,
            f"QuantizeLinear has {shape[0]} scales for the activation '{node.input(0)}'; "
            f"{target.title} computes what follows in floating point.",
            "Use one scale for a whole activation tensor.",
            "warning",
        )


def check_quantised_convolutions(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield convolutions that have quantisers around them and yet run in floating point."""
    for node in graph.nodes:
        if node.operator not in _OUTPUT_CHANNEL_AXIS:
            continue
        activation, weight = (_dequantiser(graph, node.input(index)) for index in (0, 1))
        if weight is not None and activation is None:
            yield _floating(node, "only its weights are quantised", "its activation", target)
        elif activation is not None and weight is None:
            yield _floating(node, "only its activation is quantised", "its weights", target)
        elif weight is not None:
            yield from _weight_axis(graph, node, weight, target)


def _dequantiser(graph: Graph, name: str) -> Node | None:
    node = graph.producer.get(name)
    return node if node is not None and node.operator == "DequantizeLinear" else None


def _floating(node: Node, reason: str, missing: str, target: Target) -> Finding:
    return Finding(
        "half-quantised",
        node.name,
        f"{node.operator} runs in floating point on {target.title}: {reason}.",
        f"Quantise {missing} too, or nothing of it.",
        "warning",
    )


def _weight_axis(graph: Graph, node: Node, weight: Node, target: Target) -> Iterator[Finding]:
    scales = graph.shapes.get(weight.input(1), ())
    rank = len(graph.shapes.get(weight.input(0), ())) or 1
    axis = weight.attributes.get("axis", 1) % rank
    wanted = _OUTPUT_CHANNEL_AXIS[node.operator]
    if len(scales) == 1 and scales[0] != 1 and axis != wanted:
        yield Finding(
            "weight-axis",
            weight.name,
            f"The weights of '{node.name}' have a scale for each index of axis {axis}; "
            f"{target.title} runs it in floating point unless that is axis {wanted}.",
            f"Quantise the weights per output channel: axis {wanted}.",
            "warning",
        )

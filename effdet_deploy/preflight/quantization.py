"""Rules on QuantizeLinear and DequantizeLinear.

TensorRT accepts symmetric INT8 with one scale per activation tensor and one per output channel of a
weight; many other forms parse, but silently run in floating point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.preflight.finding import Finding
from effdet_deploy.preflight.graph import attribute, input_of
from effdet_deploy.preflight.tables import QUANTIZED_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effdet_deploy.preflight.graph import Graph
    from effdet_deploy.preflight.tables import Target

SMALLEST_FP16_SCALE = 2.0**-20
"""A smaller FP16 scale is subnormal and has four significant bits or fewer."""

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_OUTPUT_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}
_ZERO_POINT_INPUT = 2
_BLOCK_AXES = 2


def check_quantized_types(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield quantizers to another type than INT8, FP8 or 4 bits, or whose zero point is not 0."""
    for node in graph.nodes_of(*_QUANTIZERS):
        dequantizes = node.op_type == "DequantizeLinear"
        kind = graph.types.get(input_of(node, 0) if dequantizes else node.output[0], "")
        if kind not in (*QUANTIZED_TYPES, "UINT8", ""):
            is_bias = any(
                reader.op_type in _OUTPUT_CHANNEL_AXIS and node.output[0] in reader.input[2:]
                for reader in graph.consumers.get(node.output[0], ())
            )
            cause = (
                f"{node.op_type} quantizes {'a bias ' if is_bias else ''}to {kind}, but "
                f"{target.title} "
                "takes INT8."
            )
            remedy = "Leave the bias in floating point." if is_bias else "Quantize to INT8."
            yield Finding(
                "quantized-bias" if is_bias else "quantized-type", node.name, cause, remedy
            )
            continue
        value = graph.constant(input_of(node, _ZERO_POINT_INPUT))
        if value is not None and value.any():
            cause = (
                f"{node.op_type} has the zero point {value[value != 0].flat[0]}, but "
                f"{target.title} "
                "only takes 0."
            )
            yield Finding("zero-point", node.name, cause, "Quantize symmetrically.")
        elif kind == "UINT8":
            cause = (
                f"{node.op_type} quantizes to UINT8; {target.title} reads this as INT8, so values "
                "above 127 are lost."
            )
            remedy = "Quantize to INT8 with an explicit INT8 zero point of 0."
            yield Finding("unsigned", node.name, cause, remedy, "warning")


def check_scales(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield scales that are not positive, not finite, or too small for FP16."""
    for node in graph.nodes_of(*_QUANTIZERS):
        value = graph.constant(input_of(node, 1))
        if value is None or value.size == 0:
            continue
        if not (value > 0).all():
            cause = (
                f"{node.op_type} has the scale {value[~(value > 0)].flat[0]}, but {target.title} "
                "only takes "
                "positive scales."
            )
            remedy = "Calibrate again, and give channels that are always zero a small scale."
            yield Finding("scale", node.name, cause, remedy)
        elif not np.isfinite(value).all():
            cause = f"{node.op_type} has an infinite scale, so all values become zero."
            yield Finding("scale", node.name, cause, "Calibrate again.", "warning")
        elif value.dtype == np.float16 and value.min() < SMALLEST_FP16_SCALE:
            cause = (
                f"{node.op_type} has the FP16 scale {value.min():.3g}, below "
                f"{SMALLEST_FP16_SCALE:.3g}, where FP16 keeps only a few bits."
            )
            remedy = "Raise the scale to 2^-20 and round it to FP16 before quantizing with it."
            yield Finding("scale", node.name, cause, remedy, "warning")


def check_granularity(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield quantizers whose blocks or scales the target does not take.

    Blocks must lie along one of the last two axes, and an activation must have a single scale.
    """
    for node in graph.nodes_of(*_QUANTIZERS):
        scales = graph.shapes.get(input_of(node, 1), ())
        if attribute(node, "block_size"):
            rank = len(graph.shapes.get(input_of(node, 0), ()))
            axis = attribute(node, "axis", 1)
            if rank and axis % rank < rank - _BLOCK_AXES:
                cause = (
                    f"{node.op_type} has blocks along axis {axis} of {rank}, but {target.title} "
                    "only takes "
                    "blocks along the last two axes."
                )
                yield Finding("blocks", node.name, cause, "Use one scale for the whole tensor.")
        elif (
            node.op_type == "QuantizeLinear"
            and any(each != 1 for each in scales)
            and not graph.is_weight(input_of(node, 0))
        ):
            cause = (
                f"QuantizeLinear has {scales[0]} scales for the activation '{input_of(node, 0)}', "
                f"so {target.title} computes the nodes that read it in floating point."
            )
            remedy = "Use one scale for a whole activation tensor."
            yield Finding("per-channel-activation", node.name, cause, remedy, "warning")


def check_quantized_convolutions(graph: Graph, target: Target) -> Iterator[Finding]:
    """Yield convolutions that have quantizers around them but run in floating point."""
    for node in graph.nodes_of(*_OUTPUT_CHANNEL_AXIS):
        feeding = (graph.producer.get(input_of(node, index)) for index in (0, 1))
        activation, weight = (
            each if each is not None and each.op_type == "DequantizeLinear" else None
            for each in feeding
        )
        if (weight is None) != (activation is None):
            only, missing = (
                ("activation is", "weights") if weight is None else ("weights are", "activation")
            )
            cause = (
                f"{node.op_type} runs in floating point on {target.title}, because only its {only} "
                "quantized."
            )
            remedy = f"Quantize its {missing} too, or leave the whole node in floating point."
            yield Finding("half-quantized", node.name, cause, remedy, "warning")
        elif weight is not None:
            scales = graph.shapes.get(input_of(weight, 1), ())
            rank = len(graph.shapes.get(input_of(weight, 0), ())) or 1
            axis = attribute(weight, "axis", 1) % rank
            wanted = _OUTPUT_CHANNEL_AXIS[node.op_type]
            if len(scales) == 1 and scales[0] != 1 and axis != wanted:
                cause = (
                    f"The weights of '{node.name}' have one scale per index of axis {axis}, but "
                    f"{target.title} runs the node in INT8 only with scales along axis {wanted}."
                )
                remedy = f"Quantize the weights per output channel: axis {wanted}."
                yield Finding("weight-axis", weight.name, cause, remedy, "warning")


RULES = (
    check_quantized_types,
    check_scales,
    check_granularity,
    check_quantized_convolutions,
)

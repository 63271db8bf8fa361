"""FP16 written into the graph, in the form that strongly typed runtimes need.

The network computes in float16; preprocessing, box decoding, NMS and outputs stay float32, with a
Cast at every border. Runtimes that compute float16 nodes in float32, as ONNX Runtime does on x86,
do not show an overflow, so values that would overflow are found from the ranges of the float32
graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from effdet_deploy.onnxgraph.index import (
    float_inputs,
    float_values,
    initializers,
    insert_after,
    network_nodes,
    producers,
)
from effdet_deploy.onnxgraph.running import scan_ranges

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

LARGEST_HALF = 65504.0
"""The largest finite float16."""
SMALLEST_NORMAL = 2.0**-14
"""Below this, float16 loses precision bit by bit, and runtimes may flush values to zero."""
MARGIN = 4.0
"""Values on other images may be larger by this factor than on the images that were measured."""
MAX_WEIGHT_ERROR = 2.0**-9
"""The largest relative RMS error of a rounded constant; values of normal size give about 2**-12."""
_HALF, _SINGLE = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
# Operators that make float32 from other types; their float32 result is cast where it is read.
_CREATORS = {"Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform", "Range"}

_Casts: TypeAlias = dict[tuple[str, int], str]
"""(value, element type) → the name of the value in that type."""


@dataclass(frozen=True)
class Unfit:
    """The name of a float32 tensor that float16 cannot hold, and the reason in a few words."""

    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


def find_unfit(model: ModelProto, batches: Iterable[NDArray[Any]]) -> list[Unfit]:
    """Return the network's tensors that float16 cannot hold if ``batches`` are the graph inputs."""
    constants = initializers(model.graph)
    floats = float_values(model)
    values = {
        value: None
        for node in network_nodes(model.graph)
        for value in (*(name for _, name in float_inputs(node, floats)), *node.output)
        if value in floats
    }
    ranges = scan_ranges(model, [value for value in values if value not in constants], batches)
    found = []
    for value in values:
        reason = ""
        if value in constants:
            reason = _misfit_of_constant(numpy_helper.to_array(constants[value]))
        elif not (largest := ranges[value].magnitude) * MARGIN <= LARGEST_HALF:
            # This condition is negated so that it is true for NaN too.
            reason = f"reaches {largest:.3g}"
        elif 0 < largest < SMALLEST_NORMAL:
            reason = f"stays below {largest:.3g}"
        if reason:
            found.append(Unfit(value, reason))
    return found


def _misfit_of_constant(values: NDArray[np.float32]) -> str:
    largest = float(np.abs(values).max(initial=0))
    if not largest <= LARGEST_HALF:
        return f"holds {largest:.3g}"
    error = float(np.linalg.norm(values - values.astype(np.float16).astype(np.float32)))
    scale = float(np.linalg.norm(values))
    return f"would lose {error / scale:.1%}" if error > MAX_WEIGHT_ERROR * scale else ""


def nodes_touching(model: ModelProto, values: Collection[str]) -> tuple[str, ...]:
    """Return the names of the network's nodes that read or make a value of ``values``."""
    wanted = set(values)
    return tuple(
        node.name
        for node in network_nodes(model.graph)
        if wanted.intersection(node.input) or wanted.intersection(node.output)
    )


def to_half(model: ModelProto, kept: Collection[str] = ()) -> None:
    """Convert the network of ``model`` to float16, in place; nodes named in ``kept`` stay float32.

    Names do not change; a Cast is named after the value that it converts.
    """
    graph = model.graph
    floats = float_values(model)
    half = {
        node.name
        for node in network_nodes(graph)
        if node.name not in kept and node.op_type not in _CREATORS
    }
    halved = {
        value
        for node in graph.node
        if node.name in half
        for value in node.output
        if value in floats
    }
    casts = _free_graph_outputs(model, halved)
    constants = _half_constants(model, half, floats)
    for node in graph.node:
        if node.name not in half:
            for index, value in enumerate(node.input):
                if value in halved:
                    node.input[index] = casts.setdefault((value, _SINGLE), f"{value}.to_fp32")
            continue
        if node.op_type == "Cast" and node.attribute[0].i == _SINGLE:
            node.attribute[0].i = _HALF
        for index, value in float_inputs(node, floats - halved):
            node.input[index] = constants.get(value) or casts.setdefault(
                (value, _HALF), f"{value}.to_fp16"
            )
    added: dict[str, list[NodeProto]] = {}
    for (value, kind), name in casts.items():
        # The result may have the name of a graph output, so the node gets a name of its own.
        node_name = f"{value}.{'to_fp16' if kind == _HALF else 'to_fp32'}"
        cast = onnx.helper.make_node("Cast", [value], [name], node_name, to=kind)
        added.setdefault(value, []).append(cast)
    insert_after(graph, added)


def _free_graph_outputs(model: ModelProto, halved: set[str]) -> _Casts:
    """Rename float16 values that are graph outputs; return the casts that make float32 outputs."""
    makers = producers(model.graph)
    casts: _Casts = {}
    for output in model.graph.output:
        if output.name not in halved:
            continue
        inner = makers[output.name].name
        for node in model.graph.node:
            node.input[:] = [inner if name == output.name else name for name in node.input]
            node.output[:] = [inner if name == output.name else name for name in node.output]
        halved.remove(output.name)
        halved.add(inner)
        casts[inner, _SINGLE] = output.name
    return casts


def _half_constants(model: ModelProto, half: set[str], floats: set[str]) -> dict[str, str]:
    """Round the constants that the network reads, and return the names of their float16 forms.

    A constant that other nodes read too stays as it is, and a float16 copy is added.
    """
    tensors = initializers(model.graph)
    read_as_half: dict[str, set[bool]] = {}
    for node in model.graph.node:
        inputs = {name for _, name in float_inputs(node, floats)} if node.name in half else set()
        for name in tensors.keys() & set(node.input):
            read_as_half.setdefault(name, set()).add(name in inputs)
    found = {}
    for name, answers in read_as_half.items():
        if True not in answers:
            continue
        found[name] = name if answers == {True} else f"{name}.fp16"
        rounded = numpy_helper.to_array(tensors[name]).astype(np.float16)
        target = tensors[name] if answers == {True} else model.graph.initializer.add()
        target.CopyFrom(numpy_helper.from_array(rounded, found[name]))
    return found

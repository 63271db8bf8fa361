"""Greedy NMS written with ONNX operators: as a loop of steps, or as all steps one after another.

A step takes the best remaining box and removes all boxes of its class that it overlaps. A loop of
steps is small and loads quickly. If a GPU computes the steps, the host must control the loop, so a
file for TensorRT has all steps one after another instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper, parser

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import GraphProto, ModelProto

    Ends = dict[str, tuple[int, list[int | None]]]

_DOMAIN = "effdet"
# The parts from which the NMS is built, in ONNX's text format. ``alive`` has the number of every
# box that may still be taken, and 0 for the others.
_COLUMNS = """
columns (float[N,K,6] table) => (float[N,K] low_y) {
    low_y_column, low_x_column, high_y_column, high_x_column, area_column, class_column
        = Split <axis = 2, num_outputs = 6> (table)
    low_y = Squeeze (low_y_column, depth)
    low_x = Squeeze (low_x_column, depth)
    high_y = Squeeze (high_y_column, depth)
    high_x = Squeeze (high_x_column, depth)
    area = Squeeze (area_column, depth)
    class = Squeeze (class_column, depth)
}
"""
_STEP = """
step (float[N,K] alive) => (float[N,K] left, float[N,1] number) {
    number = ReduceMax (alive, width)
    ahead = Sub (count, number)
    within = Min (ahead, last)
    place = Cast <to = 7> (within)
    best = GatherND <batch_dims = 1> (table, place)
    best_low_y, best_low_x, best_high_y, best_high_x, best_area, best_class
        = Split <axis = 1, num_outputs = 6> (best)
    start_y = Max (low_y, best_low_y)
    end_y = Min (high_y, best_high_y)
    shared_y = Sub (end_y, start_y)
    start_x = Max (low_x, best_low_x)
    end_x = Min (high_x, best_high_x)
    shared_x = Sub (end_x, start_x)
    shared_width = Relu (shared_x)
    inter = Mul (shared_width, shared_y)
    scaled = Mul (inter, scale)
    areas = Add (area, best_area)
    overlaps = Greater (scaled, areas)
    same_class = Equal (class, best_class)
    suppressed = And (overlaps, same_class)
    itself_and_before = GreaterOrEqual (alive, number)
    dead = Or (suppressed, itself_and_before)
    left = Where (dead, nothing, alive)
}
"""
_GO_ON = "go (bool going) => (bool goes_on) { goes_on = Identity (going) }"
_LOOP = """
loop (float[N,K] alive) => (float[N,D] kept) {
    remaining, numbers = Loop (steps, always, alive)
    in_order = Squeeze (numbers, depth)
    kept = Transpose <perm = [1, 0]> (in_order)
}
"""


def expand_greedy(model: ModelProto, *, unroll: bool) -> None:
    """Replace the node that stands for greedy NMS, in place; a graph without this node stays.

    The node's inputs are the table ``[N,K,6]`` (box, area, class; best first) and the numbers of
    the boxes that take part ``[N,K]``, where the first box has number K. The node's output has the
    numbers of the kept boxes ``[N,D]``; if fewer than D are kept, the rest are 0. See
    :class:`effdet_deploy.pytorch.graph.nms.GreedyNms`.
    """
    graph = model.graph
    found = next((node for node in graph.node if node.domain == _DOMAIN), None)
    if found is None:
        return
    given = {each.name: helper.get_attribute_value(each) for each in found.attribute}
    path = found.name.rpartition(".")[0]
    constants = dict(_constants(path, given))
    known = {name: tensor.name for name, tensor in constants.items()}
    known["table"] = found.input[0]
    nodes, inner = _written(_COLUMNS, path, known), list[NodeProto]()
    if unroll:
        alive, numbers = found.input[1], []
        for index in range(given["rows"]):
            inside = known | {"alive": alive}
            nodes += _written(_STEP, f"{path}.step_{index}", inside)
            alive = inside["left"]
            numbers.append(inside["number"])
        nodes.append(helper.make_node("Concat", numbers, found.output, f"{path}.kept", axis=1))
    else:
        body = _body(path, known, given["boxes"])
        nodes += _written(_LOOP, path, known | {"alive": found.input[1], "kept": found.output[0]})
        loop = next(node for node in nodes if node.op_type == "Loop")
        loop.attribute.append(helper.make_attribute("body", body))
        inner = list(body.node)
    read = {value for node in (*nodes, *inner) for value in node.input}
    graph.initializer.extend(each for each in constants.values() if each.name in read)
    position = list(graph.node).index(found)
    following = list(graph.node)[position + 1 :]
    del graph.node[position:]
    graph.node.extend([*nodes, *following])
    model.opset_import.remove(next(e for e in model.opset_import if e.domain == _DOMAIN))


def _constants(path: str, given: Mapping[str, Any]) -> Iterator[tuple[str, TensorProto]]:
    """Yield the constants that the parts of the NMS read, with their names in the parts."""
    count, threshold = given["boxes"], given["iou_threshold"]
    for name, value in {
        "count": np.float32(count),
        # If no box is left, the last box is taken; there is no box left that it could suppress.
        "last": np.float32(count - 1),
        "nothing": np.float32(0),
        # IoU > t without a division: intersection · (1 + t) / t > the sum of both areas.
        "scale": np.float32((1 + threshold) / threshold),
        "width": np.array([1], np.int64),
        "depth": np.array([2], np.int64),
        "steps": np.int64(given["rows"]),
        "always": np.bool_(True),
    }.items():
        yield name, numpy_helper.from_array(np.asarray(value), f"{path}.{name}")


def _written(text: str, path: str, known: dict[str, str]) -> list[NodeProto]:
    """Return the nodes of a part of the NMS.

    The values that they compute get names under ``path``, and are added to ``known``.
    """
    nodes = list(parser.parse_graph(text).node)
    for node in nodes:
        node.name = f"{path}.{node.output[0]}"
        for value in node.output:
            known.setdefault(value, f"{path}.{value}")
        for values in (node.input, node.output):
            values[:] = [known[value] for value in values]
    return nodes


def _body(path: str, known: Mapping[str, str], boxes: int) -> GraphProto:
    """Return a step as the body of a loop; it reads the table and constants from outside."""
    path = f"{path}.step"
    inside = {**known, **{name: f"{path}.{name}" for name in ("iteration", "going", "alive")}}
    nodes = [*_written(_STEP, path, inside), *_written(_GO_ON, path, inside)]
    number, flag, real = TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT
    inputs: Ends = {"iteration": (number, []), "going": (flag, []), "alive": (real, [None, boxes])}
    outputs: Ends = {
        "goes_on": (flag, []),
        "left": (real, [None, boxes]),
        "number": (real, [None, 1]),
    }
    described = (
        [helper.make_tensor_value_info(inside[name], *kind) for name, kind in each.items()]
        for each in (inputs, outputs)
    )
    return helper.make_graph(nodes, "step", *described)

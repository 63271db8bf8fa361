"""Joining the four outputs of a detector into one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from effdet_deploy.artifact.spec import DETECTION_OUTPUTS

if TYPE_CHECKING:
    from onnx import ModelProto

    from effdet_deploy.artifact.spec import DetectorSpec

_XYXY_OF_YXYX = (1, 0, 3, 2)


def join_detections(model: ModelProto, spec: DetectorSpec, name: str) -> None:
    """Make ``model`` end in one float32 output ``[N,D,6]``: x1, y1, x2, y2, score, class; in place.

    Args:
        model: a model with the four outputs of a detector, with opset 13 or later.
        spec: the spec of the model.
        name: the name of the new output.
    """
    graph = model.graph
    _, boxes, scores, classes = DETECTION_OUTPUTS
    node = "postprocess.joined"
    graph.initializer.append(numpy_helper.from_array(np.array([2], np.int64), f"{node}.last"))
    if spec.output.box_format == "yxyx":
        order = np.array(_XYXY_OF_YXYX, np.int64)
        graph.initializer.append(numpy_helper.from_array(order, f"{node}.order"))
        inputs = [boxes, f"{node}.order"]
        graph.node.append(
            helper.make_node("Gather", inputs, [f"{node}.gather"], f"{node}.gather", axis=2)
        )
        boxes = f"{node}.gather"
    cast, columns = f"{node}.cast", [boxes]
    graph.node.append(helper.make_node("Cast", [classes], [cast], cast, to=TensorProto.FLOAT))
    for index, each in enumerate((scores, cast)):
        column = f"{node}.unsqueeze_{index}"
        graph.node.append(helper.make_node("Unsqueeze", [each, f"{node}.last"], [column], column))
        columns.append(column)
    graph.node.append(helper.make_node("Concat", columns, [name], f"{node}.concat", axis=2))
    first = graph.input[0].type.tensor_type.shape.dim[0]
    shape = [first.dim_param or first.dim_value, spec.output.max_detections, 6]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    _drop_unused(graph)
    onnx.checker.check_model(model)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes that only computed the number of detections."""
    used = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)

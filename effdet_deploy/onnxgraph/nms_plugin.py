"""``--nms plugin``: the graph ends in TensorRT's own NMS, which also decodes the boxes.

Attributes, inputs and outputs: NVIDIA/TensorRT, ``plugin/efficientNMSPlugin/README.md``, and the
sample ``samples/python/efficientdet/create_onnx.py``. The plugin is added to a finished graph that
ends in raw heads, so that tracing, simplifying and lowering the precision never meet an unknown
operator.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from effdet_deploy.artifact.anchors import anchor_centers
from effdet_deploy.artifact.spec import DETECTION_OUTPUTS, HEAD_OUTPUTS, PLUGIN_CANDIDATES
from effdet_deploy.onnxgraph.finishing import write_onnx
from effdet_deploy.onnxgraph.raw_heads import PLUGIN_DOMAIN

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import NodeProto

    from effdet_deploy.artifact.spec import DetectorSpec, OutputSpec

PLUGIN = "EfficientNMS_TRT"
NODE = "postprocess.nms.efficientnms_trt"
"""The name of the plugin's node."""
CONSIDERED = (
    f"the plugin {PLUGIN} always considers the {PLUGIN_CANDIDATES} best scores of a picture; "
    "NVIDIA has marked it as deprecated"
)
NOT_RUN = (
    f"the raw heads were compared, and the detections that numpy makes from them; the plugin "
    f"{PLUGIN} was not run, because only TensorRT has it"
)
_GATHER = "postprocess.gather"
_XYXY_OF_YXYX = (1, 0, 3, 2)
_VERSION = "1"
_SIGMOID, _CENTER_AND_SIZE, _NO_BACKGROUND = 1, 1, -1


def attach_plugin(path: Path, spec: DetectorSpec, output: OutputSpec) -> DetectorSpec:
    """Make the graph at ``path`` end in the plugin instead of raw heads, in place.

    Args:
        path: an ONNX file of ours whose outputs are the raw heads, in float32.
        spec: the spec of that file.
        output: the description of the new outputs.

    Returns:
        The spec as written.
    """
    model = onnx.load(path)
    graph = model.graph
    inputs = [*reversed(HEAD_OUTPUTS), f"{NODE}.anchors"]
    for index, head in enumerate(inputs[:2]):
        maker = next(node for node in graph.node if head in node.output)
        # The head is no longer an output of the graph, so it gets the name of its node.
        inputs[index] = maker.output[0] = maker.name
    centers = anchor_centers(spec.anchors, spec.input.height, spec.input.width)
    graph.initializer.append(numpy_helper.from_array(centers[None], inputs[2]))
    graph.node.extend(_nodes(inputs, output))
    if output.box_format == "xyxy":
        order = np.array(_XYXY_OF_YXYX, np.int64)
        graph.initializer.append(numpy_helper.from_array(order, f"{_GATHER}.order"))
    first = graph.input[0].type.tensor_type.shape.dim[0]
    batch, depth = first.dim_param or first.dim_value, output.max_detections
    shapes = ((1,), (depth, 4), (depth,), (depth,))
    kinds = (TensorProto.INT32, TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32)
    del graph.output[:]
    for name, kind, sides in zip(DETECTION_OUTPUTS, kinds, shapes, strict=True):
        graph.output.append(helper.make_tensor_value_info(name, kind, [batch, *sides]))
    # The checker refuses operators of ONNX's own domain that ONNX does not define. NVIDIA's parser
    # looks for plugins by name, version and plugin_namespace before it looks at a domain.
    model.opset_import.append(helper.make_opsetid(PLUGIN_DOMAIN, 1))
    return write_onnx(model, dataclasses.replace(spec, output=output), path)


def _nodes(inputs: list[str], output: OutputSpec) -> list[NodeProto]:
    """Return the plugin's node, and nodes that reorder its yxyx boxes to xyxy if needed."""
    swaps = output.box_format == "xyxy"
    count, boxes, scores, classes = DETECTION_OUTPUTS
    given = f"{NODE}:1" if swaps else boxes
    plugin = helper.make_node(
        PLUGIN,
        inputs,
        [count, given, scores, classes],
        NODE,
        domain=PLUGIN_DOMAIN,
        plugin_version=_VERSION,
        score_threshold=output.score_threshold,
        iou_threshold=output.iou_threshold,
        max_output_boxes=output.max_detections,
        background_class=_NO_BACKGROUND,
        score_activation=_SIGMOID,
        class_agnostic=int(output.class_agnostic),
        box_coding=_CENTER_AND_SIZE,
    )
    reordered = helper.make_node("Gather", [given, f"{_GATHER}.order"], [boxes], _GATHER, axis=2)
    return [plugin, reordered] if swaps else [plugin]

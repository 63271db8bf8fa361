"""TensorRT's plugin EfficientNMS_TRT in numpy, as NVIDIA documents it, for machines without a GPU.

Source: NVIDIA/TensorRT, ``plugin/efficientNMSPlugin/README.md``. Scores are filtered, the 4096 best
are sorted, their boxes decoded and suppressed class by class; rows after the last detection are
zero. Unlike in our NMS, an IoU of exactly the threshold suppresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from effdet_deploy.artifact.spec import DETECTION_OUTPUTS, HEAD_OUTPUTS, INPUT_NAME
from effdet_deploy.detection.postprocess import iou_with, sigmoid
from effdet_deploy.onnxgraph.raw_heads import PLUGIN_DOMAIN, add_head_outputs

if TYPE_CHECKING:
    from pathlib import Path

CONSIDERED = 4096


def plugin_node(model: onnx.ModelProto) -> onnx.NodeProto:
    (node,) = (each for each in model.graph.node if each.domain == PLUGIN_DOMAIN)
    return node


def attributes_of(node: onnx.NodeProto) -> dict:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def run_emulated(path: Path, images: np.ndarray, scratch: Path) -> dict[str, np.ndarray]:
    """Run a graph that ends in the plugin: ONNX Runtime computes the heads, numpy the rest."""
    model = onnx.load(path)
    heads = scratch / "emulated.heads.onnx"
    add_head_outputs(path, heads)
    session = onnxruntime.InferenceSession(heads, providers=["CPUExecutionProvider"])
    logits, codes = session.run(list(HEAD_OUTPUTS), {INPUT_NAME: images})
    node = plugin_node(model)
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    anchors = constants[node.input[2]][0]
    rows = [
        efficient_nms(*each, anchors, **attributes_of(node))
        for each in zip(codes, logits, strict=True)
    ]
    given = dict(zip(node.output, map(np.stack, zip(*rows, strict=True)), strict=True))
    for after in model.graph.node:
        if after.input and after.input[0] in given:
            assert after.op_type == "Gather"
            given[after.output[0]] = given[after.input[0]][..., constants[after.input[1]]]
    return {name: given[name] for name in DETECTION_OUTPUTS}


def efficient_nms(codes, logits, anchors, **attributes):
    """Return the count ``[1]``, boxes ``[D,4]``, scores ``[D]`` and classes ``[D]``.

    The coordinates of the boxes are in the order that the anchors have (x first or y first).

    Args:
        codes: ``[A,4]``.
        logits: ``[A,C]``.
        anchors: ``[A,4]``: center and size.
        attributes: the plugin's node has them.
    """
    assert attributes["score_activation"] == 1
    assert attributes["box_coding"] == 1
    assert attributes["background_class"] == -1
    scores = sigmoid(logits)
    anchor, label = np.nonzero(scores >= np.float32(attributes["score_threshold"]))
    order = np.argsort(-logits[anchor, label], kind="stable")[:CONSIDERED]
    anchor, label = anchor[order], label[order]
    boxes = _decode(codes[anchor], anchors[anchor])
    depth = attributes["max_output_boxes"]
    groups = np.zeros_like(label) if attributes["class_agnostic"] else label
    kept = _suppress(boxes, groups, np.float32(attributes["iou_threshold"]), depth)
    missing = depth - len(kept)
    return (
        np.array([len(kept)], np.int32),
        np.pad(boxes[kept], ((0, missing), (0, 0))).astype(np.float32),
        np.pad(scores[anchor, label][kept], (0, missing)).astype(np.float32),
        np.pad(label[kept], (0, missing)).astype(np.int32),
    )


def _decode(codes, anchors):
    center = codes[:, :2] * anchors[:, 2:] + anchors[:, :2]
    size = anchors[:, 2:] * np.exp(codes[:, 2:])
    return np.concatenate([center - size / 2, center + size / 2], axis=1)


def _suppress(boxes, labels, threshold, limit):
    kept: list[int] = []
    for row, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        if len(kept) == limit:
            break
        rivals = [each for each in kept if labels[each] == label]
        if not rivals or not (iou_with(box, boxes[rivals]) >= threshold).any():
            kept.append(row)
    return kept

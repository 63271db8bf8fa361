"""Tiny ONNX detectors for the native tests, made without torch; their scores need every channel.

The score of a row (a detection) is a weighted mean of the picture's channels, so a wrong channel
order, fill color or scale shows in the scores.
"""

from __future__ import annotations

import json

import numpy as np
from onnx import helper, numpy_helper

ANCHORS = {
    "min_level": 3,
    "max_level": 7,
    "num_scales": 3,
    "aspect_ratios": [[1.0, 1.0], [1.4, 0.7], [0.7, 1.4]],
    "scale": 4.0,
}
CLASSES = [
    {"name": "square", "category_id": 10},
    {"name": "circle", "category_id": 11},
    {"name": "ring", "category_id": 12},
]
BOXES = np.array(
    [
        *([10, 20, 50, 60], [60, 10, 120, 100], [100, 100, 140, 150], [-5, -5, 30, 30]),
        *([200, 200, 210, 210], [0.25, 0.75, 95.3, 64.1]),
    ],
    np.float32,
)


def make_spec(height=128, width=160, batch=(1, 1), output=None, **fields):
    """Return a spec as a dict; ``fields`` are fields of its input."""
    return {
        "version": 1,
        "variant": "tiny",
        "input": {"height": height, "width": width, **fields},
        "anchors": ANCHORS,
        "classes": CLASSES,
        "output": {"max_detections": len(BOXES), "candidates": 200, **(output or {})},
        "batch": {"minimum": batch[0], "optimum": batch[0], "maximum": batch[1]},
    }


def anchor_count(spec):
    """Return how many anchors the spec's input has."""
    rows, columns = spec["input"]["height"], spec["input"]["width"]
    cells = 0
    for level in range(ANCHORS["max_level"] + 1):
        cells += rows * columns if level >= ANCHORS["min_level"] else 0
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    return cells * ANCHORS["num_scales"] * len(ANCHORS["aspect_ratios"])


def _constant(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def _rows(spec):
    depth = spec["output"]["max_detections"]
    swap = spec["output"].get("box_format") == "yxyx"
    boxes = BOXES[:, [1, 0, 3, 2]] if swap else BOXES
    mix = np.random.default_rng(1).uniform(0.05, 0.33, (3, depth)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["channels", "mix"], ["detection_scores"]),
        helper.make_node("Mul", ["detection_scores", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "labels"], ["labels_float"]),
        helper.make_node("Cast", ["labels_float"], ["detection_classes"], to=6),
        helper.make_node("Unsqueeze", ["zero", "last"], ["zero3"]),
        helper.make_node("Add", ["zero3", "boxes"], ["detection_boxes"]),
        helper.make_node("ReduceMax", ["zero", "axis1"], ["zero1"]),
        helper.make_node("Add", ["zero1", "count"], ["count_float"]),
        helper.make_node("Cast", ["count_float"], ["num_detections"], to=6),
    ]
    constants = [
        _constant("mix", mix),
        _constant("labels", (np.arange(depth) % 3).astype(np.float32)[None]),
        _constant("boxes", boxes[None]),
        _constant("count", np.full((1, 1), depth, np.float32)),
        _constant("axis1", np.array([1])),
        _constant("last", np.array([2])),
    ]
    outputs = [
        ("num_detections", 6, [1]),
        ("detection_boxes", 1, [depth, 4]),
        ("detection_scores", 1, [depth]),
        ("detection_classes", 6, [depth]),
    ]
    return nodes, constants, outputs


def _heads(spec):
    random = np.random.default_rng(0)
    anchors = anchor_count(spec)
    logits = random.normal(-3, 1.5, (1, anchors, 3)).astype(np.float32)
    codes = random.normal(0, 0.4, (1, anchors, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Unsqueeze", ["channels", "one"], ["channels3"]),
        helper.make_node("Add", ["channels3", "logits"], ["class_logits"]),
        helper.make_node("ReduceMean", ["channels3", "last"], ["mean3"]),
        helper.make_node("Mul", ["mean3", "nothing"], ["zero3"]),
        helper.make_node("Add", ["zero3", "codes"], ["box_regression"]),
    ]
    constants = [
        *(_constant("logits", logits), _constant("codes", codes)),
        *(_constant("one", np.array([1])), _constant("last", np.array([2]))),
    ]
    outputs = [("class_logits", 1, [anchors, 3]), ("box_regression", 1, [anchors, 4])]
    return nodes, constants, outputs


def write_model(path, spec):
    """Write a detector that ``spec`` describes."""
    kind = spec["input"].get("kind", "uint8")
    height, width = spec["input"].get(
        "source_size", [spec["input"][k] for k in ("height", "width")]
    )
    sides = [height, width, 3] if kind == "uint8" else [3, height, width]
    axes = [1, 2] if kind == "uint8" else [2, 3]
    heads = spec["output"].get("nms") == "none"
    more, constants, outputs = (_heads if heads else _rows)(spec)
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=1),
        helper.make_node("ReduceMean", ["pixels", "space"], ["levels"], keepdims=0),
        helper.make_node("Mul", ["levels", "scale"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "low", "high"], ["channels"]),
        *more,
    ]
    batch = spec["batch"]
    side = batch["minimum"] if batch["minimum"] == batch["maximum"] else "batch"
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", 2 if kind == "uint8" else 1, [side, *sides])],
        [
            helper.make_tensor_value_info(name, dtype, [side, *rest])
            for name, dtype, rest in outputs
        ],
        initializer=[
            _constant("space", np.array(axes)),
            _constant("scale", np.float32(0.3 if kind == "normalized" else 1 / 255)),
            *(_constant("low", np.float32(0)), _constant("high", np.float32(1))),
            _constant("nothing", np.float32(0)),
            *constants,
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key="effdet.spec", value=json.dumps(spec))
    path.write_bytes(model.SerializeToString())
    return path


def printed_rows(found) -> list[str]:
    """Return the lines that the programs print for Python's detections."""
    return [
        " ".join((found.names[label], f"{score:.4f}", *(f"{side:.2f}" for side in box)))
        for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True)
    ]

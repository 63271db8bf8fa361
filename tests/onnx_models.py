"""Tiny ONNX detectors for tests: a few nodes, an export's inputs and outputs, and a spec.

The spec describes the file. The score of every row (detection) is the picture's mean brightness
(0-1) times the row's weight, so results depend only on the picture.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from effdet_deploy.artifact.anchors import anchor_boxes
from effdet_deploy.artifact.spec import (
    METADATA_KEY,
    AnchorSpec,
    BatchSpec,
    ClassSpec,
    DetectorSpec,
    InputSpec,
    OutputSpec,
    even_octaves,
)

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 128
# Boxes xyxy in pixels of the network's input; the last box lies partly outside of it.
BOXES = np.array(
    [[10, 20, 50, 60], [60, 10, 120, 100], [100, 100, 140, 150], [-5, -5, 30, 30]], dtype=np.float32
)
WEIGHTS = np.array([1.0, 0.8, 0.6, 0.4], dtype=np.float32)
CLASSES = np.array([0, 2, 1, 0], dtype=np.float32)
NAMES = ("square", "circle", "ring")


def detector_spec(*, batch: BatchSpec | None = None, **output) -> DetectorSpec:
    """Return the spec of a tiny detector; ``output`` overrides fields of OutputSpec."""
    return DetectorSpec(
        variant="tiny",
        input=InputSpec(height=SIDE, width=SIDE),
        anchors=AnchorSpec(3, 7, even_octaves(3), ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)), 4.0),
        classes=tuple(ClassSpec(name, 10 + index) for index, name in enumerate(NAMES)),
        output=OutputSpec(**({"max_detections": len(BOXES)} | output)),
        batch=batch or BatchSpec(),
    )


def with_input(spec: DetectorSpec, **fields) -> DetectorSpec:
    """Return ``spec`` with other fields of its InputSpec."""
    return dataclasses.replace(spec, input=dataclasses.replace(spec.input, **fields))


def _constant(name: str, values) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def _brightness(spec: DetectorSpec) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes that compute ``mean`` [N,1] in 0-1 and ``zero`` [N,1] from the images."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean255"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean255", "last"], ["column"]),
        helper.make_node("Mul", ["column", "scale"], ["mean"]),
        helper.make_node("Mul", ["column", "nothing"], ["zero"]),
        helper.make_node("Unsqueeze", ["zero", "last2"], ["zero3"]),
    ]
    constants = [
        _constant("axes", np.array([1, 2, 3])),
        _constant("last", np.array([1])),
        _constant("last2", np.array([2])),
        _constant("scale", np.float32(1 / 255)),
        _constant("nothing", np.float32(0)),
    ]
    return nodes, constants


def _detection_outputs(spec: DetectorSpec) -> tuple[list, list, list]:
    boxes = BOXES if spec.output.box_format == "xyxy" else BOXES[:, [1, 0, 3, 2]]
    depth = spec.output.max_detections
    nodes = [
        helper.make_node("Add", ["zero", "count"], ["count_float"]),
        helper.make_node("Cast", ["count_float"], ["num_detections"], to=onnx.TensorProto.INT32),
        helper.make_node("Add", ["zero3", "boxes"], ["detection_boxes"]),
        helper.make_node("Mul", ["mean", "weights"], ["detection_scores"]),
        helper.make_node("Add", ["zero", "classes"], ["classes_float"]),
        helper.make_node(
            "Cast", ["classes_float"], ["detection_classes"], to=onnx.TensorProto.INT32
        ),
    ]
    constants = [
        _constant("count", np.full((1, 1), depth, np.float32)),
        _constant("boxes", boxes[None]),
        _constant("weights", WEIGHTS[None]),
        _constant("classes", CLASSES[None]),
    ]
    shapes = [
        ("num_detections", onnx.TensorProto.INT32, [1]),
        ("detection_boxes", onnx.TensorProto.FLOAT, [depth, 4]),
        ("detection_scores", onnx.TensorProto.FLOAT, [depth]),
        ("detection_classes", onnx.TensorProto.INT32, [depth]),
    ]
    return nodes, constants, shapes


def raw_heads(spec: DetectorSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return the heads of a raw-head model for a black picture: ``[A,C]`` and ``[A,4]``."""
    generator = np.random.default_rng(0)
    count = len(anchor_boxes(spec.anchors, spec.input.height, spec.input.width))
    logits = generator.normal(-3, 1.5, (count, spec.num_classes)).astype(np.float32)
    return logits, generator.normal(0, 0.4, (count, 4)).astype(np.float32)


def _head_outputs(spec: DetectorSpec) -> tuple[list, list, list]:
    logits, codes = raw_heads(spec)
    nodes = [
        helper.make_node("Unsqueeze", ["mean", "last2"], ["mean3"]),
        helper.make_node("Add", ["mean3", "logits"], ["class_logits"]),
        helper.make_node("Add", ["zero3", "codes"], ["box_regression"]),
    ]
    constants = [_constant("logits", logits[None]), _constant("codes", codes[None])]
    shapes = [
        ("class_logits", onnx.TensorProto.FLOAT, [len(logits), spec.num_classes]),
        ("box_regression", onnx.TensorProto.FLOAT, [len(logits), 4]),
    ]
    return nodes, constants, shapes


def tiny_model(spec: DetectorSpec | None = None, *, with_spec: bool = True) -> onnx.ModelProto:
    """Return a tiny detector that ``spec`` describes."""
    spec = spec or detector_spec()
    side = spec.batch.minimum if spec.batch.is_static else "batch"
    dtype = onnx.TensorProto.UINT8 if spec.input.kind == "uint8" else onnx.TensorProto.FLOAT
    first, first_constants = _brightness(spec)
    build = _head_outputs if spec.output.nms == "none" else _detection_outputs
    nodes, constants, shapes = build(spec)
    graph = helper.make_graph(
        first + nodes,
        "tiny",
        [helper.make_tensor_value_info("images", dtype, [side, *spec.input.shape(1)[1:]])],
        [helper.make_tensor_value_info(name, kind, [side, *rest]) for name, kind, rest in shapes],
        initializer=first_constants + constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if with_spec:
        set_spec(model, spec)
    return model


def set_spec(model: onnx.ModelProto, spec: DetectorSpec) -> None:
    """Write ``spec`` into the metadata of ``model``."""
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=spec.to_json())


def write_tiny(path: Path, spec: DetectorSpec | None = None) -> Path:
    """Write a tiny detector to ``path``."""
    path.write_bytes(tiny_model(spec).SerializeToString())
    return path

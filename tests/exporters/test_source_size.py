"""`--source-size`: the graph itself resizes frames, and gives boxes in pixels of the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from PIL import Image

from effdet_deploy import load
from effdet_deploy.exporters import Artifact, ExportOptions, export
from effdet_deploy.precision.fp16 import to_half
from effdet_deploy.synthetic import structured_pictures
from tests.networks import conditioned
from tests.precision.rtx import Build

if TYPE_CHECKING:
    from pathlib import Path

FRAME = (192, 256)
RESIZE_OPERATORS = ("Conv", "Floor")


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Lite0 at 128 pixels for frames of twice its width, which are halved without rounding."""
    path: Path = tmp_path_factory.mktemp("frames") / "framed.onnx"
    options = ExportOptions(source_size=FRAME)
    return export(conditioned("tf_efficientdet_lite0"), path, options)


def test_an_export_for_frames_is_verified_like_any_other(framed: Artifact) -> None:
    assert framed.report is not None
    assert framed.report.passed
    (images,) = onnx.load(framed.path).graph.input
    sides = [each.dim_value for each in images.type.tensor_type.shape.dim]
    assert sides[1:] == [*FRAME, 3]


def test_boxes_are_in_pixels_of_the_frame_and_of_any_other_picture(framed: Artifact) -> None:
    (frame,) = structured_pictures(1, *FRAME, 3)
    twice = np.asarray(Image.fromarray(frame).resize((512, 384), Image.Resampling.NEAREST))
    with load(framed.path) as detector:
        (small,), (large,) = detector.detect(frame), detector.detect(twice)
    assert len(small) > 3
    assert FRAME[1] / 2 < small.boxes[:, 2].max() <= FRAME[1]
    assert FRAME[1] < large.boxes[:, 2].max() <= 2 * FRAME[1]


def test_the_resize_stays_float_under_fp16(framed: Artifact) -> None:
    model = onnx.load(framed.path)
    to_half(model)
    constants = {each.name: each.data_type for each in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.name.startswith("preprocess.frames.")]
    assert {node.op_type for node in nodes} >= set(RESIZE_OPERATORS)
    kinds = {constants[name] for node in nodes for name in node.input if name in constants}
    assert onnx.TensorProto.FLOAT in kinds
    assert onnx.TensorProto.FLOAT16 not in kinds
    assert not any(node.op_type == "Cast" and node.name.endswith("to_fp16") for node in nodes)


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_tensorrt_rtx_builds_the_graph_with_a_float_resize(framed: Artifact, half: bool) -> None:
    model = onnx.load(framed.path)
    if half:
        to_half(model)
    build = Build(model.SerializeToString())
    assert build.errors == []
    assert build.engine is not None
    found = build.inputs_of_convolutions()
    resizes = {kind for name, kind in found.items() if name.startswith("preprocess.frames.")}
    network = {kind for name, kind in found.items() if not name.startswith("preprocess.frames.")}
    assert resizes == {"Float"}
    assert network == {"Half" if half else "Float"}

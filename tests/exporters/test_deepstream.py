"""`--target deepstream`, from the network to a verified file."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.exporters import ExportOptions, export
from effdet_deploy.preflight import check_model
from effdet_deploy.synthetic import structured_pictures

SIDE = 128
FRAME = (72, 128)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    options = ExportOptions(
        weights="random",
        image_size=(SIDE, SIDE),
        target="deepstream",
        frame_size=FRAME,
        batch=BatchSpec(1, 1, 2),
    )
    return export("lite0", tmp_path_factory.mktemp("deepstream") / "lite0.onnx", options)


def test_an_export_for_deepstream_is_verified_and_says_what_it_is(exported):
    assert exported.report.passed
    spec = exported.spec
    assert (spec.input.kind, spec.input.frame_size) == ("float255", FRAME)
    assert (spec.precision.target, spec.output.nms_form) == ("tensorrt", "matrix")
    assert check_model(exported.path, "tensorrt-11") == ()


def test_the_padding_changes_nothing_and_no_box_lies_outside_of_the_frame(exported):
    session = onnxruntime.InferenceSession(exported.path)
    frames = structured_pictures(2, *FRAME, seed=3).transpose(0, 3, 1, 2)
    found = []
    for padding in (0, 255):
        images = np.full((2, 3, SIDE, SIDE), padding, np.float32)
        images[:, :, : FRAME[0]] = frames
        found.append(session.run(None, {"images": images}))
    for black, white in zip(*found, strict=True):
        assert np.array_equal(black, white)
    count, boxes, _, _ = found[0]
    for image in range(2):
        rows = boxes[image, : count[image, 0]]
        assert len(rows) > 5
        assert rows.min() >= 0
        assert rows[:, 3].max() <= FRAME[0]
        assert np.all(rows[:, 2:] > rows[:, :2])

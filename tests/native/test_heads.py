"""C++ turns raw heads into rows (detections) as the package does; no runtime is needed for that."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import onnxruntime
import pytest

import effdet_deploy
from tests.native.models import anchor_count, make_spec, write_model

SCORE_TOLERANCE, BOX_TOLERANCE_PX = 1e-6, 1e-3
"""Python uses numpy's exp and C++ the C library's; their last bits differ."""


@pytest.mark.parametrize(
    "output",
    [
        {},
        {"candidates": 30, "max_detections": 30, "score_threshold": 0.01},
        {"iou_threshold": 0.1},
        {"score_threshold": 0.9},
    ],
    ids=["usual", "few candidates", "low IoU threshold", "no score reaches the threshold"],
)
@pytest.mark.parametrize("size", [(128, 160), (150, 97)], ids=["multiples", "odd sizes"])
def test_rows_of_raw_heads_are_those_of_the_package(
    testing_library, binding, tmp_path, output, size
):
    common = {"nms": "none", "score_threshold": 0.2, "max_detections": 60}
    spec = make_spec(*size, output=common | output)
    model = write_model(tmp_path / "heads.onnx", spec)
    # A picture of the network's size is not scaled, so boxes differ only by clipping.
    picture = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(model))
    logits, codes = session.run(["class_logits", "box_regression"], {"images": picture[None]})
    rows = (binding.CRow * spec["output"]["max_detections"])()
    library = ctypes.CDLL(str(testing_library))
    count = library.effdet_testing_finish(
        json.dumps(spec).encode(),
        *(each.ctypes.data_as(ctypes.c_void_p) for each in (logits, codes)),
        rows,
    )
    with effdet_deploy.load(model, "onnxruntime", "cpu") as detector:
        (found,) = detector.detect(picture)
    boxes = np.array([(r.x1, r.y1, r.x2, r.y2) for r in rows[:count]], np.float32).reshape(-1, 4)
    boxes = np.clip(boxes, 0, [size[1], size[0]] * 2)
    inside = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    kept = [row for row, seen in zip(rows[:count], inside, strict=True) if seen]
    assert [row.class_index for row in kept] == found.labels.tolist()
    np.testing.assert_allclose([row.score for row in kept], found.scores, atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(boxes[inside], found.boxes, atol=BOX_TOLERANCE_PX, rtol=1e-5)


def test_octave_scales_of_version_two_are_read(testing_library, binding):
    spec = make_spec(output={"nms": "none", "score_threshold": 0.2, "max_detections": 60})
    newer = json.loads(json.dumps(spec)) | {"version": 2}
    count = newer["anchors"].pop("num_scales")
    newer["anchors"]["octave_scales"] = [2 ** (each / count) for each in range(count)]
    random = np.random.default_rng(4)
    anchors = anchor_count(spec)
    logits = random.normal(-3, 1.5, (anchors, 3)).astype(np.float32)
    codes = random.normal(0, 0.4, (anchors, 4)).astype(np.float32)
    library = ctypes.CDLL(str(testing_library))
    found = []
    for each in (spec, newer):
        rows = (binding.CRow * 60)()
        arrays = (each.ctypes.data_as(ctypes.c_void_p) for each in (logits, codes))
        kept = library.effdet_testing_finish(json.dumps(each).encode(), *arrays, rows)
        found.append((kept, bytes(rows)))
    assert found[0] == found[1]
    assert found[0][0] > 10

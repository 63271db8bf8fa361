"""A reference made from weights has effdet's post-processing and as many rows as the artifact."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from effdet_deploy.artifact.spec import InputSpec
from effdet_deploy.diagnosis.open_reference import eager_detector, require_one_size
from effdet_deploy.errors import UsageError
from effdet_deploy.exporters import ExportOptions
from effdet_deploy.exporters.source import load_source, specification_of
from effdet_deploy.progress import silent
from effdet_deploy.synthetic import structured_pictures

ROWS = 300


def test_eager_pytorch_gives_as_many_rows_as_the_artifact():
    options = ExportOptions(
        weights="random", image_size=(128, 128), max_detections=ROWS, iou_threshold=0.9
    )
    spec = specification_of(load_source("lite0", options, silent), options, None)
    fewer = dataclasses.replace(spec, output=dataclasses.replace(spec.output, max_detections=10))
    detector = eager_detector([fewer, spec], "random")
    (found,) = detector.detect([structured_pictures(1, 128, 128, 3)[0]])
    assert detector.spec.output.max_detections == ROWS
    # Boxes beyond the picture are left out, so some of the rows may be free.
    assert 200 < len(found) <= ROWS
    assert detector.spec.output.candidates == 5000
    assert detector.spec.output.iou_threshold == 0.5


def test_layers_are_compared_only_between_graphs_for_the_same_frames():
    plain = InputSpec(128, 128)
    framed = dataclasses.replace(plain, source_size=(720, 1280))
    require_one_size(Path("a.onnx"), framed, framed)
    with pytest.raises(
        UsageError, match=r"128x128 resized from frames of 720x1280, and .* 128x128"
    ):
        require_one_size(Path("a.onnx"), framed, plain)

"""NaN or infinity in the outputs of the reference or of the candidate fails a comparison."""

from __future__ import annotations

import numpy as np
import pytest

from effdet_deploy.detection.detector import Detector
from effdet_deploy.detection.pictures import verification_images
from effdet_deploy.parity import compare
from effdet_deploy.parity.comparison import verify
from tests.parity.stand_ins import (
    StandInReference,
    StandInRuntime,
    StandInSide,
    detector_spec,
    finished,
    heads_of,
)

SPEC = detector_spec()
IMAGES = verification_images(SPEC.input)[:2]


def poisoned(value, name="class_logits"):
    def run(batch):
        heads = heads_of(batch)
        heads[name][:, 7, 1] = value
        return heads

    return run


class Poisoned(StandInReference):
    def __init__(self, spec, value, name):
        super().__init__(spec)
        self.heads = poisoned(value, name)


@pytest.mark.parametrize("name", ["class_logits", "box_regression"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["reference", "candidate", "both"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_one_element_of_a_head_fails_the_verification(name, value, side, precision):
    spec = detector_spec(precision)
    reference = StandInReference(spec) if side == "candidate" else Poisoned(spec, value, name)
    run_heads = heads_of if side == "reference" else poisoned(value, name)
    # The detections are right, and alone would not show the fault.
    candidate = StandInSide(spec, run_heads, finished(heads_of, spec))
    report = verify(candidate, reference, IMAGES)
    assert report.status == "failed"
    assert not report.deliverable


@pytest.mark.parametrize("name", ["detection_boxes", "detection_scores"])
@pytest.mark.parametrize("sides", [(True, False), (False, True), (True, True)])
def test_one_detection_fails_the_comparison_of_artifacts(name, sides):
    def spoiled(batch):
        outputs = finished(heads_of, SPEC)(batch)
        outputs[name][0, 3] = np.nan
        return outputs

    healthy = finished(heads_of, SPEC)
    ours, theirs = (
        Detector(StandInRuntime(SPEC, spoiled if is_bad else healthy)) for is_bad in sides
    )
    report = compare(ours, theirs, IMAGES)
    assert report.status == "failed"
    assert "NaN or infinite" in report.detections.reason

"""``compare``: two artifacts, or an artifact and a network, are compared on pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import effdet_deploy
from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.detection.detector import Detector
from effdet_deploy.errors import UsageError
from effdet_deploy.parity import compare
from effdet_deploy.parity.comparison import compare_all
from effdet_deploy.parity.side import RuntimeSide, side_of
from effdet_deploy.synthetic import structured_pictures
from tests.parity.stand_ins import (
    StandInReference,
    StandInRuntime,
    detector_spec,
    finished,
    heads_of,
    with_noise,
)

# Twice the network's size: boxes are compared in pixels of the picture.
PICTURES = list(structured_pictures(3, 256, 256, seed=1))


def detector(run_heads=heads_of, **options) -> Detector:
    spec = detector_spec(**options)
    run = run_heads if spec.output.nms == "none" else finished(run_heads, spec)
    return Detector(StandInRuntime(spec, run))


def side(run_heads=heads_of, **options) -> RuntimeSide:
    return side_of(detector(run_heads, **options).runtime)


def test_compare_is_part_of_the_public_interface():
    assert effdet_deploy.compare is compare


def test_an_artifact_equals_itself():
    report = compare(detector(), detector(), PICTURES)
    assert report.passed
    assert report.images == 3
    assert report.outputs == ()
    assert report.detections.matched == 3 * 50


def test_raw_heads_are_compared_where_both_give_them():
    report = compare(detector(with_noise(1e-5), nms="none"), detector(nms="none"), PICTURES)
    assert report.passed
    assert [output.name for output in report.outputs] == ["class_logits", "box_regression"]
    assert 0 < report.outputs[0].errors.largest < 1e-4


def test_an_artifact_with_nms_is_compared_with_one_without():
    report = compare(detector(), detector(nms="none"), PICTURES)
    assert report.passed
    assert report.outputs == ()


def test_a_difference_is_reported_and_raises_no_error():
    report = compare(detector(with_noise(0.05)), detector(), PICTURES)
    assert report.status == "failed"
    assert report.detections.missed
    assert report.detections.extra


def test_the_coarser_precision_of_the_two_decides():
    noisy = detector(with_noise(3e-3), precision="int8")
    assert compare(noisy, detector(), PICTURES).passed
    assert compare(detector(), noisy, PICTURES).precision == "int8"
    assert not compare(detector(with_noise(3e-3)), detector(), PICTURES).passed


def test_boxes_differ_in_pixels_of_the_picture():
    def shifted(batch):
        outputs = finished(heads_of, detector_spec())(batch)
        outputs["detection_boxes"] = outputs["detection_boxes"] + np.float32(0.01)
        return outputs

    moved = Detector(StandInRuntime(detector_spec(), shifted))
    report = compare(moved, detector(), PICTURES)
    assert report.detections.box_difference == pytest.approx(0.02, rel=0.01)


def test_the_higher_score_threshold_of_the_two_counts():
    report = compare(detector(score_threshold=0.8), detector(), PICTURES)
    assert report.passed
    assert 0 < report.detections.matched < 3 * 50


def test_detectors_that_need_a_larger_batch_get_one():
    report = compare(detector(batch=BatchSpec(4, 4, 4)), detector(), PICTURES)
    assert report.passed


def test_other_anchors_are_compared_by_detections_only():
    spec = detector_spec(nms="none")
    other = dataclasses.replace(spec, anchors=dataclasses.replace(spec.anchors, scale=3.0))
    report = compare(Detector(StandInRuntime(other, heads_of)), detector(nms="none"), PICTURES)
    assert report.outputs == ()
    assert report.status == "failed"


def test_other_classes_are_refused():
    spec = detector_spec()
    fewer = dataclasses.replace(spec, classes=spec.classes[:2])
    with pytest.raises(UsageError, match="2 classes, but the reference has 4"):
        compare(Detector(StandInRuntime(fewer, heads_of)), detector(), PICTURES)


def test_no_images_are_refused():
    with pytest.raises(UsageError, match="no pictures"):
        compare(detector(), detector(), [])


def test_detectors_of_the_caller_stay_open():
    ours = detector()
    compare(ours, detector(), PICTURES[:1])
    assert not ours.runtime.is_closed


def test_a_candidate_may_differ_by_the_references_own_rounding():
    def off(batch):
        return {name: each + np.float32(4e-3) for name, each in heads_of(batch).items()}

    candidate = side(off, nms="none")
    plain, known = side(nms="none"), StandInReference(own_error=2e-3)
    (strict,) = compare_all({"": candidate}, plain, PICTURES[:1])
    (fair,) = compare_all({"": candidate}, known, PICTURES[:1])
    assert [each.status for each in strict.report.outputs] == ["failed", "failed"]
    assert [each.status for each in fair.report.outputs] == ["passed", "passed"]


def test_heads_of_an_artifact_with_nms_come_from_a_copy_that_shows_them():
    copy = StandInRuntime(detector_spec(nms="none"), heads_of)
    shown = RuntimeSide(detector_spec(), detector().runtime, copy)
    (found,) = compare_all({"a": shown}, side(nms="none"), PICTURES[:1])
    assert [each.name for each in found.report.outputs] == ["class_logits", "box_regression"]
    assert found.name == "a"


def test_one_reference_runs_once_for_all_candidates():
    runs = []

    def counted(batch):
        runs.append(len(batch))
        return heads_of(batch)

    candidates = {"a": side(), "b": side(with_noise(0.05))}
    found = compare_all(candidates, side(counted), PICTURES)
    assert [each.report.status for each in found] == ["passed", "failed"]
    assert runs == [1, 1, 1]


def test_detections_are_inconclusive_if_float64_does_not_confirm_the_reference_either():
    """As in an export, a candidate need not agree better than the network agrees with float64."""
    unsure = StandInReference()
    unsure.heads64 = with_noise(0.05)
    (found,) = compare_all({"": side(with_noise(0.05))}, unsure, PICTURES)
    assert found.report.detections.status == "inconclusive"
    assert found.report.detections.own_share < 0.999
    (sure,) = compare_all({"": side(with_noise(0.05))}, StandInReference(), PICTURES)
    assert sure.report.detections.status == "failed"
    assert sure.report.detections.own_share == 1


def test_the_networks_own_error_is_measured_where_heads_differ_most():
    pictures = list(structured_pictures(20, 128, 128, seed=2))
    worst = [picture.tobytes() for picture in pictures[-2:]]
    asked = []

    class Watched(StandInReference):
        def heads64(self, batch):
            asked.append(batch[0].tobytes())
            return super().heads64(batch)

    def off(batch):
        error = np.float32(9e-3 if batch[0].tobytes() in worst else 2e-3)
        return {name: each + error for name, each in heads_of(batch).items()}

    compare_all({"": side(off, nms="none")}, Watched(), pictures)
    assert len(asked) == 16
    assert set(asked[:2]) == set(worst)

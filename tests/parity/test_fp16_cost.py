"""An artifact in FP16 is judged by what FP16 costs the network itself."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from effdet_deploy.artifact.anchors import feature_sizes
from effdet_deploy.detection.pictures import verification_images
from effdet_deploy.parity.comparison import verify
from effdet_deploy.parity.fp16_cost import OWN_FP16_FACTOR
from effdet_deploy.reports.verification import render
from tests.parity.stand_ins import (
    ANCHORS,
    FP16_SCALES,
    StandInReference,
    StandInSide,
    detector_spec,
    finished,
    heads_of,
)

# The logits have a mean of -3 and a spread of 1.5. A shift by FP16 weights of 0.13 leaves 28 dB.
WEIGHTS_SHIFT, NOISE = 0.13, 0.13
# Twice the relative rounding error of FP16, times a typical size of the logits.
ALLOWED = 2 * 2**-11 * 3.35
LEVEL = 5


def rows_of(level):
    in_place = len(ANCHORS.octave_scales) * len(ANCHORS.aspect_ratios)
    counts = [rows * columns * in_place for rows, columns in feature_sizes(128, 128, 7)]
    start = sum(counts[ANCHORS.min_level : level])
    return slice(start, start + counts[level])


def heads_off_by(shift=WEIGHTS_SHIFT, noise=0.0, rows=slice(None)):
    """Return a function that gives heads shifted by FP16 weights, with noise in some rows."""

    def run(batch):
        generator = np.random.default_rng(2)
        found = {}
        for name, each in heads_of(batch).items():
            scale = FP16_SCALES[name]
            found[name] = each + np.float32(shift * scale)
            part = found[name][:, rows]
            part += generator.normal(0, noise * scale, part.shape).astype(np.float32)
        return found

    return run


def judged(run_heads, *, fp16=(WEIGHTS_SHIFT, NOISE), precision="fp32", run_detections=None):
    spec = detector_spec("fp16")
    candidate = StandInSide(spec, run_heads, run_detections or finished(run_heads, spec))
    candidate.precision = precision
    return verify(candidate, StandInReference(spec, fp16=fp16), verification_images(spec.input))


def test_fp16_heads_with_the_networks_own_fp16_error_pass_and_the_report_says_so():
    report = judged(heads_off_by())
    assert report.passed
    assert report.heads_match
    logits = report.outputs[0]
    assert logits.errors.snr_db < 30
    assert logits.fp16_snr_db == pytest.approx(logits.errors.snr_db - 3, abs=0.3)
    console = Console(file=io.StringIO(), width=200)
    console.print(render(report))
    said = console.file.getvalue()
    assert (
        f"class_logits: {logits.errors.snr_db:.1f} dB (FP16 alone: {logits.fp16_snr_db:.1f} dB)"
        in said
    )
    document = report.to_dict()["outputs"][0]
    assert [each["level"] for each in document["levels"]] == [3, 4, 5, 6, 7]
    assert document["fp16_snr_db"] == logits.fp16_snr_db


def test_heads_fail_if_they_differ_by_more_than_fp16_weights_explain():
    report = judged(heads_off_by(noise=2 * ALLOWED))
    assert [each.status for each in report.outputs] == ["failed", "failed"]
    assert judged(heads_off_by(noise=ALLOWED / 3)).passed


def test_weights_that_were_not_rounded_fail_where_rounding_them_matters():
    assert not judged(heads_of).passed


def test_a_wrong_level_fails_however_few_anchors_it_has():
    report = judged(heads_off_by(noise=0.05, rows=rows_of(LEVEL)))
    for each in report.outputs:
        assert each.status == "failed"
        assert each.worst_level.level == LEVEL
        assert [level.error < level.allowed for level in each.levels].count(False) == 1


@pytest.mark.parametrize(("times", "passed"), [(1.0, True), (1.6, True), (2.4, False)])
def test_a_runtime_that_rounds_may_differ_by_twice_the_error_of_rounding(times, passed):
    assert OWN_FP16_FACTOR == 2.0
    heads = heads_off_by(noise=times * NOISE)
    report = judged(heads, precision="fp16")
    assert all(each.status == "passed" for each in report.outputs) is passed
    assert not judged(heads, precision="fp32").passed


def test_detections_may_be_lost_twice_as_often_as_the_network_loses_them():
    report = judged(heads_off_by(noise=NOISE), precision="fp16")
    found = report.detections
    assert found.plain_share < found.required
    assert found.fp16_share < found.required
    assert found.status == "passed"
    assert f"itself keeps {found.fp16_share:.1%} of its detections in FP16" in found.reason
    share = 1 - 2.1 * (1 - found.fp16_share)
    lost = dataclasses.replace(found, matched=int(found.total * share / 2))
    assert lost.status != "passed"


def test_a_wrong_nms_fails_though_the_heads_are_right():
    other = finished(heads_off_by(), detector_spec("fp16", iou_threshold=0.05))
    report = judged(heads_off_by(), run_detections=other)
    assert all(each.status == "passed" for each in report.outputs)
    assert report.detections.fp16_share is None
    assert report.detections.status != "passed"


def test_an_artifact_may_also_differ_by_the_networks_own_float32_error():
    spec = detector_spec("fp16")
    run_heads = heads_off_by(noise=2 * ALLOWED)
    candidate = StandInSide(spec, run_heads, finished(run_heads, spec))
    candidate.precision = "fp32"
    reference = StandInReference(spec, own_error=ALLOWED, fp16=(WEIGHTS_SHIFT, NOISE))
    report = verify(candidate, reference, verification_images(spec.input))
    assert report.outputs[1].own_error == pytest.approx(ALLOWED, rel=0.01)
    assert all(each.status == "passed" for each in report.outputs)


def test_heads_are_only_measured_if_the_references_fp16_error_is_unknown():
    report = judged(heads_off_by(shift=1e-3), fp16=None)
    assert report.passed
    assert report.outputs[0].levels == ()
    assert report.outputs[0].fp16_snr_db is None
    assert report.detections.fp16_share is None

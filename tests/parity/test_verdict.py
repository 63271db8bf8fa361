"""When a comparison passes, fails or is inconclusive, and how its report says so.

A row is a detection. A row that only one model has may be set aside if it is at a border.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from effdet_deploy.parity.matching import Stray
from effdet_deploy.parity.metrics import tensor_errors
from effdet_deploy.parity.verdict import ChainParity, DetectionParity, OutputParity, ParityReport
from effdet_deploy.reports.verification import render

BORDER = "its suppression depends on an IoU or score at the border"


def output_parity(error=0.0, **fields) -> OutputParity:
    errors = tensor_errors(np.array([1.0, 2.0]), np.array([1.0, 2.0 + error]))
    return OutputParity("class_logits", errors, **({"tolerance": 1e-3} | fields))


def detection_parity(matched=1000, missed=0, extra=0, aside=0, **fields) -> DetectionParity:
    box = (0.0, 0.0, 1.0, 1.0)
    strays = [Stray(0, "reference", 1, 0.5, box) for _ in range(missed)]
    strays += [Stray(0, "candidate", 1, 0.5, box) for _ in range(extra)]
    strays += [Stray(0, "reference", 1, 0.5, box, BORDER) for _ in range(aside)]
    return DetectionParity(
        images=4,
        reference_count=matched + missed + aside,
        candidate_count=matched + extra,
        matched=matched,
        strays=tuple(strays),
        **({"iou": 0.99, "required": 0.999} | fields),
    )


def report(*outputs, detections=None, chains=None) -> ParityReport:
    return ParityReport("fp32", 4, (1,), outputs, detections, chains)


def text_of(one) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(render(one))
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("error", "own_error", "status"),
    [
        (0.0009, None, "passed"),
        (0.0011, None, "failed"),
        (0.0011, 0.0002, "failed"),
        (0.0011, 0.0003, "passed"),
        (0.0009, 0.0001, "passed"),
    ],
)
def test_heads_may_differ_by_the_tolerance_or_four_times_the_networks_own_error(
    error, own_error, status
):
    assert output_parity(error, own_error=own_error).status == status


def test_heads_without_tolerance_pass_unless_they_are_not_finite():
    assert output_parity(100, tolerance=None).status == "passed"
    assert output_parity(math.nan, tolerance=None).status == "failed"


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ({}, "passed"),
        ({"missed": 2}, "passed"),
        ({"missed": 3}, "failed"),
        ({"extra": 2}, "passed"),
        ({"extra": 3}, "failed"),
        ({"missed": 2, "aside": 50}, "passed"),
        ({"missed": 3, "aside": 50}, "failed"),
        ({"aside": 100}, "passed"),
        ({"aside": 120}, "inconclusive"),
        ({"missed": 50, "aside": 120}, "inconclusive"),
        ({"matched": 0}, "inconclusive"),
        ({"matched": 0, "missed": 1}, "failed"),
        ({"matched": 0, "extra": 1}, "failed"),
        ({"matched": 0, "aside": 10}, "inconclusive"),
        ({"missed": 50, "required": None}, "passed"),
        ({"missed": 50, "own_share": 0.99}, "inconclusive"),
        ({"missed": 50, "own_share": 1.0}, "failed"),
        ({"non_finite": 1}, "failed"),
        ({"non_finite": 1, "required": None}, "failed"),
        ({"broken": "it fell over"}, "failed"),
    ],
)
def test_detections_are_judged_by_the_share_that_is_matched(counts, status):
    assert detection_parity(**counts).status == status


def test_border_cases_are_not_set_aside_if_enough_rows_match_with_them_counted():
    parity = detection_parity(matched=90, aside=18, required=0.9, iou=0.9)
    assert parity.set_aside_share > 0.05
    assert parity.status == "passed"


def test_weak_detections_near_the_threshold_do_not_outvote_the_strong_ones():
    box = (0.0, 0.0, 1.0, 1.0)
    excuse = "score within 5.0e-02 of the score threshold (0.010000)"
    weak = tuple(Stray(0, "reference", 1, 0.02, box, excuse, True) for _ in range(900))
    sure = Stray(0, "reference", 1, 0.5, box)
    fields = {"images": 4, "matched": 1000, "iou": 0.9, "required": 0.9, "candidate_count": 1000}

    def status_of(missed: int, near_limit: int) -> str:
        return DetectionParity(
            reference_count=1900 + missed,
            strays=(*weak, *(sure for _ in range(missed))),
            near_limit=near_limit,
            **fields,
        ).status

    assert status_of(missed=0, near_limit=2400) == "passed"
    assert status_of(missed=300, near_limit=2400) == "failed"
    # No detection is left that could show anything.
    assert status_of(missed=0, near_limit=2900) == "inconclusive"


def test_border_cases_of_nms_count_against_the_detections_that_are_near_no_limit():
    # 60 of 300 is more than 5%, though 60 of all 2,060 is less.
    assert detection_parity(missed=300, aside=60, near_limit=2060).status == "inconclusive"
    assert detection_parity(missed=300, aside=60).status == "failed"


def test_rows_set_aside_are_left_out_of_the_share():
    assert detection_parity(matched=100, aside=5).share == 1
    assert detection_parity(matched=99, missed=1, extra=1).share == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("head_error", "counts", "status", "is_delivered"),
    [
        (0, {}, "passed", True),
        (0, {"matched": 0}, "inconclusive", True),
        (1, {"matched": 0}, "failed", False),
        (1, {}, "failed", False),
        (0, {"missed": 9}, "failed", False),
        (None, {"matched": 0}, "inconclusive", False),
        (None, {}, "passed", True),
    ],
)
def test_an_export_is_delivered_when_passed_or_inconclusive_with_matching_heads(
    head_error, counts, status, is_delivered
):
    outputs = [output_parity(head_error)] if head_error is not None else []
    one = report(*outputs, detections=detection_parity(**counts))
    assert one.status == status
    assert one.passed is (status == "passed")
    assert one.inconclusive is (status == "inconclusive")
    assert one.deliverable is is_delivered


def test_heads_without_a_tolerance_do_not_count_as_matching():
    one = report(output_parity(tolerance=None), detections=detection_parity(matched=0))
    assert one.inconclusive
    assert not one.deliverable


def test_a_report_that_compared_nothing_is_inconclusive():
    assert report().inconclusive


def test_the_json_form_is_strict_json_with_every_figure():
    broken = output_parity(math.nan)
    one = report(
        broken, output_parity(), detections=detection_parity(aside=1), chains=ChainParity(3, 16)
    )
    document = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    assert document["status"] == "failed"
    assert document["outputs"][0]["non_finite"] == {"reference": 0, "candidate": 1}
    assert document["outputs"][0]["passing_tolerance"] is None
    assert document["outputs"][1]["snr_db"] is None
    assert document["detections"]["set_aside"][0]["excuse"] == BORDER
    assert document["chains"] == {"needed": 3, "allowed": 16}


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (report(output_parity(5e-4)), ["[✓] class_logits: largest error 5.00e-04, allowed"]),
        (report(output_parity(5e-3)), ["[✗] verification failed", "[✗] class_logits"]),
        (report(output_parity(math.nan)), ["0 elements of the reference and 1 of the candidate"]),
        (report(output_parity(own_error=1.0)), ["own float32 error is 1.0e+00"]),
        (report(output_parity(tolerance=None)), ["measured, not judged"]),
        (
            report(output_parity(1, by_batch=((8, 1.0), (1, 0.0)))),
            ["1.00e+00 at batch 8, 0.00e+00 at batch 1"],
        ),
        (report(detections=detection_parity(matched=0)), ["[?] detections: nothing was detected"]),
        (report(detections=detection_parity(missed=1)), ["missed: image 0, class 1"]),
        (report(detections=detection_parity(extra=9)), ["extra: 4 more"]),
        (report(detections=detection_parity(aside=1)), ["set aside: image 0", "only in the ref"]),
        (report(detections=detection_parity(broken="it fell over")), ["[✗] detections: it fell"]),
        (report(chains=ChainParity(4, 16)), ["[✓] NMS: 4 of 16 steps"]),
        (report(chains=ChainParity(17, 16)), ["[?] NMS: 17 of 16 steps", "--nms-steps 34"]),
        (report(chains=ChainParity(17, None)), ["[✓] NMS: suppression chains of up to 17"]),
    ],
)
def test_the_terminal_form_says_what_matters(one, expected):
    text = text_of(one)
    for part in expected:
        assert part in text


def test_the_table_shows_error_cosine_and_the_tolerance_that_would_pass():
    (line,) = [
        line
        for line in text_of(report(output_parity(0.0123))).splitlines()
        if line.startswith("class_logits")
    ]
    errors = output_parity(0.0123).errors
    expected = ["1.23e-02", "6.15e-03", f"{errors.cosine:.7f}", f"{errors.snr_db:.1f}", "1.3e-02"]
    assert line.split()[1:] == expected


def test_reports_with_equal_values_are_equal():
    assert dataclasses.replace(report(), images=4) == report()


@pytest.mark.parametrize(("error", "deliverable"), [(1e-3, True), (0.5, False)])
def test_without_detections_a_reduced_precision_is_delivered_by_the_noise_in_its_heads(
    error, deliverable
):
    silent = detection_parity(matched=0)
    head = output_parity(error, tolerance=None, least_snr_db=35.0)
    judged = report(head, detections=silent)
    assert judged.inconclusive
    assert judged.deliverable is deliverable

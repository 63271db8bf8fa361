"""A comparison proves nothing if neither the reference nor the candidate detects anything.

A model that detects nothing is called silent here.
"""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from effdet_deploy.detection.detector import Detector
from effdet_deploy.detection.pictures import verification_images
from effdet_deploy.parity import compare
from effdet_deploy.parity.comparison import verify
from effdet_deploy.reports.verification import render
from tests.parity.stand_ins import (
    StandInReference,
    StandInRuntime,
    StandInSide,
    detector_spec,
    finished,
    heads_of,
)

# No logit of the stand-in reaches this score.
SILENT = detector_spec(score_threshold=0.999999)
IMAGES = verification_images(SILENT.input)[:2]


def silent(batch):
    """Return heads from which no detection reaches the threshold."""
    return finished(heads_of, SILENT)(batch)


def verified(run_heads):
    return verify(StandInSide(SILENT, run_heads, silent), StandInReference(SILENT), IMAGES)


def test_nothing_on_both_sides_is_inconclusive_and_the_report_says_so():
    report = verified(heads_of)
    assert report.inconclusive
    assert not report.passed
    console = Console(file=io.StringIO(), width=200)
    console.print(render(report))
    assert "[?] detections: nothing was detected on either side" in console.file.getvalue()


def test_an_export_whose_heads_match_is_still_delivered():
    assert verified(heads_of).deliverable


def test_an_export_whose_heads_differ_is_not_delivered():
    def wrong(batch):
        return {name: np.zeros_like(each) for name, each in heads_of(batch).items()}

    assert not verified(wrong).deliverable


def test_an_export_whose_heads_were_not_seen_is_not_delivered():
    assert not verified(None).deliverable


def test_two_silent_artifacts_do_not_pass_a_comparison():
    one, other = (Detector(StandInRuntime(SILENT, silent)) for _ in range(2))
    assert compare(one, other, IMAGES).inconclusive


def test_silence_on_one_side_alone_fails():
    loud = detector_spec()
    one, other = (Detector(StandInRuntime(loud, run)) for run in (silent, finished(heads_of, loud)))
    assert compare(one, other, IMAGES).status == "failed"
    assert compare(other, one, IMAGES).status == "failed"

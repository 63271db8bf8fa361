"""``--candidates auto`` chooses how many boxes enter NMS (candidates), and a note says so.

It chooses the smallest number that gives the same detections (rows) as effdet's 5000.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from effdet_deploy.artifact.spec import CANDIDATE_CHOICES
from effdet_deploy.detection.pictures import verification_images
from effdet_deploy.detection.postprocess import finish_heads
from effdet_deploy.exporters.candidates import first_candidates, settle_candidates
from effdet_deploy.exporters.options import ExportOptions
from effdet_deploy.progress import silent
from tests.parity.stand_ins import StandInReference, detector_spec, heads_of

IMAGES = verification_images(detector_spec().input)


def settled(options: ExportOptions, *, shown: int = 0, verified: bool = True, pairs: int = 10**6):
    """Return the spec and the notes of an export once its number of candidates is settled."""
    rows = options.max_detections
    entering = min(first_candidates(options, rows), pairs)
    spec = detector_spec(candidates=entering, max_detections=rows, nms=options.nms)
    reference = StandInReference(spec) if verified else None
    return settle_candidates(spec, options, reference, IMAGES if verified else [], shown, silent)


def rows_with(candidates: int, rows: int) -> list[np.ndarray]:
    """Return the rows that this number of candidates gives."""
    heads = heads_of(np.stack(IMAGES))
    spec = detector_spec(candidates=candidates, max_detections=rows, nms="none")
    return list(finish_heads(*heads.values(), spec).values())


@pytest.mark.parametrize("rows", [20, 400, 700, 900])
def test_the_chosen_number_gives_the_rows_of_5000_and_the_next_smaller_one_does_not(rows: int):
    spec, notes = settled(ExportOptions(max_detections=rows), shown=16)
    chosen = spec.output.candidates
    assert notes == (f"{chosen} candidates give the same detections as 5000 on your 16 pictures.",)
    for one, other in zip(rows_with(chosen, rows), rows_with(5000, rows), strict=True):
        np.testing.assert_array_equal(one, other)
    smaller = [each for each in CANDIDATE_CHOICES if rows <= each < chosen]
    if smaller:
        pairs = zip(rows_with(smaller[-1], rows), rows_with(5000, rows), strict=True)
        assert not all(np.array_equal(one, other) for one, other in pairs)


def test_the_cases_above_choose_more_than_one_number():
    """Otherwise the test above would pass with one number for all cases."""
    chosen = {
        settled(ExportOptions(max_detections=rows))[0].output.candidates for rows in (20, 900)
    }
    assert len(chosen) == 2
    assert 1000 in chosen


@pytest.mark.parametrize("images", [IMAGES, IMAGES[::-1]])
def test_the_picture_that_needs_most_decides_wherever_it_stands(images):
    # With 755 rows, the first picture needs 1,001 candidates, and all others fewer than 1,000.
    spec = detector_spec(candidates=5000, max_detections=755)
    told: list[str] = []
    options = ExportOptions(max_detections=755)
    chosen, _ = settle_candidates(spec, options, StandInReference(spec), images, 0, told.append)
    assert chosen.output.candidates == 2000
    assert len(told) == len(images)
    assert told[-1].endswith(f"picture {len(images)} of {len(images)}")


def test_a_number_that_the_user_gives_is_taken_without_a_note():
    spec, notes = settled(ExportOptions(candidates=1234))
    assert spec.output.candidates == 1234
    assert notes == ()


def test_without_verification_effdets_number_is_taken_and_a_note_says_why():
    spec, notes = settled(ExportOptions(verify=False), verified=False)
    assert spec.output.candidates == 5000
    assert "5000 candidates enter NMS, as in effdet" in notes[0]
    assert "without verification" in notes[0]


def test_no_more_candidates_are_chosen_than_there_are_pairs_of_anchor_and_class():
    spec, _ = settled(ExportOptions(max_detections=20), pairs=300)
    assert spec.output.candidates == 300


def test_no_fewer_candidates_are_chosen_than_rows_are_wanted():
    spec, _ = settled(ExportOptions(max_detections=6000))
    assert spec.output.candidates == 6000


def test_the_plugin_takes_its_own_fixed_number():
    spec, notes = settled(ExportOptions(nms="plugin"))
    assert spec.output.candidates == 4096
    assert notes == ()


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({"candidates": 1000}, "blocks"),
        ({"candidates": 1000, "target": "tensorrt"}, "matrix"),
        ({"candidates": 1001}, "greedy"),
        ({"candidates": 1001, "target": "tensorrt"}, "greedy"),
        ({"candidates": 5000, "nms_steps": 16}, "blocks"),
        ({"candidates": 5000, "nms_steps": 16, "target": "tensorrt"}, "matrix"),
        ({"candidates": 5000, "nms": "onnx"}, "blocks"),
    ],
)
def test_the_kind_of_nms_follows_from_candidates_target_and_steps(fields: dict, form: str):
    spec, _ = settled(dataclasses.replace(ExportOptions(), **fields))
    assert spec.output.nms_form == form

"""The rows (detections) of reference and candidate are matched.

A row without a partner is a stray: either a fault, or set aside with an excuse, such as a score at
the threshold.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effdet_deploy.artifact.spec import OutputSpec
from effdet_deploy.parity.matching import ComparedImage, judge_detections, match_rows, strays
from effdet_deploy.parity.rows import Rows, make_rows
from effdet_deploy.parity.tolerances import TOLERANCES

OUTPUT = OutputSpec(score_threshold=0.01, iou_threshold=0.5)
# The difference in scores between two runs of one network in these tests.
SCORE_ERROR = 1e-4


def boxes_at(*lefts, scores=None, classes=None, limit=0) -> Rows:
    """Return boxes of 10x10 pixels at the same y, so only ``lefts`` decides what overlaps."""
    boxes = np.array([[left, 0.0, left + 10, 10] for left in lefts]).reshape(-1, 4)
    count = len(lefts)
    scores = np.linspace(0.9, 0.5, count) if scores is None else scores
    return make_rows(boxes, scores, classes or [0] * count, limit)


def found_strays(
    reference, candidate, nms_inputs=None, iou=0.9, score_error=SCORE_ERROR, output=OUTPUT
):
    matching = match_rows(reference, candidate, iou)
    image = ComparedImage(3, (100, 100), reference, candidate, matching, nms_inputs)
    return strays(image, output, score_error, iou)


def test_identical_detections_all_match_without_difference():
    rows = boxes_at(0, 50, 100)
    matching = match_rows(rows, rows, 0.99)
    assert matching.pairs.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert (matching.box_difference, matching.score_difference) == (0, 0)
    assert not len(matching.missed)
    assert not len(matching.extra)


def test_the_order_of_rows_does_not_matter():
    rows = boxes_at(0, 50, 100)
    matching = match_rows(rows, rows.take([2, 0, 1]), 0.99)
    assert {tuple(pair) for pair in matching.pairs.tolist()} == {(0, 1), (1, 2), (2, 0)}


def test_the_reported_differences_are_the_largest_of_all_pairs():
    reference = boxes_at(0, 50, scores=[0.9, 0.8])
    candidate = boxes_at(0.25, 49.5, scores=[0.9, 0.78])
    matching = match_rows(reference, candidate, 0.9)
    assert matching.box_difference == pytest.approx(0.5)
    assert matching.score_difference == pytest.approx(0.02)


def test_a_shifted_box_counts_as_one_missed_and_one_extra():
    matching = match_rows(boxes_at(0, 50, 100), boxes_at(0, 53, 100), 0.9)
    assert (matching.missed.tolist(), matching.extra.tolist()) == ([1], [1])


def test_another_class_is_another_detection():
    matching = match_rows(boxes_at(0, classes=[1]), boxes_at(0, classes=[2]), 0.5)
    assert len(matching.pairs) == 0


def test_the_better_overlap_wins_before_the_better_score():
    reference = boxes_at(0, scores=[0.5])
    candidate = boxes_at(1, 0.1, scores=[0.5, 0.4])
    assert match_rows(reference, candidate, 0.5).pairs.tolist() == [[0, 1]]


def test_equal_overlaps_go_to_the_nearer_score():
    reference = boxes_at(0, scores=[0.5])
    candidate = boxes_at(1, -1, scores=[0.9, 0.52])
    assert match_rows(reference, candidate, 0.5).pairs.tolist() == [[0, 1]]


def test_a_row_is_used_once():
    matching = match_rows(boxes_at(0), boxes_at(0, 0), 0.5)
    assert len(matching.pairs) == 1
    assert len(matching.extra) == 1


def test_a_box_that_is_not_finite_matches_nothing():
    broken = make_rows([[np.nan, 0, 10, 10]], [0.9], [0])
    assert len(match_rows(broken, broken.take([0]), 0.5).pairs) == 0


ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 4), st.integers(0, 1)),
    max_size=8,
)


def rows_of_table(table):
    columns = np.array(table, dtype=float).reshape(-1, 4)
    boxes = np.concatenate([columns[:, :2], columns[:, :2] + 5], axis=1)
    return make_rows(boxes, columns[:, 2] / 4, columns[:, 3])


@settings(deadline=None, max_examples=60)
@given(ROWS, ROWS, st.sampled_from([0.3, 0.5, 0.9]))
def test_matching_does_not_depend_on_which_side_is_the_reference(one, other, iou):
    forth = match_rows(rows_of_table(one), rows_of_table(other), iou)
    back = match_rows(rows_of_table(other), rows_of_table(one), iou)
    assert {tuple(pair) for pair in forth.pairs} == {tuple(pair[::-1]) for pair in back.pairs}
    assert forth.missed.tolist() == back.extra.tolist()
    assert forth.extra.tolist() == back.missed.tolist()
    assert forth.score_difference == back.score_difference


@settings(deadline=None, max_examples=60)
@given(ROWS, ROWS, st.sampled_from([0.3, 0.5, 0.9]))
def test_no_pair_is_left_that_could_still_be_made(one, other, iou):
    reference, candidate = rows_of_table(one), rows_of_table(other)
    matching = match_rows(reference, candidate, iou)
    left = match_rows(reference.take(matching.missed), candidate.take(matching.extra), iou)
    assert len(left.pairs) == 0
    assert len(matching.pairs) + len(matching.missed) == len(reference)
    assert len(matching.pairs) + len(matching.extra) == len(candidate)


def test_a_plain_miss_and_a_plain_extra_have_no_excuse():
    reference, candidate = boxes_at(0, 50), boxes_at(0, 80)
    found = found_strays(reference, candidate)
    assert [(each.side, each.excuse) for each in found] == [("reference", ""), ("candidate", "")]
    assert found[0].image == 3
    assert found[0].box == (50, 0, 60, 10)


def test_a_matched_row_is_never_a_stray_even_on_a_border():
    rows = boxes_at(0, scores=[0.01], limit=1)
    assert found_strays(rows, rows) == []


@pytest.mark.parametrize(("score", "is_excused"), [(0.01005, True), (0.0102, False)])
def test_a_score_at_the_threshold_is_set_aside(score, is_excused):
    (stray,) = found_strays(boxes_at(0, scores=[score]), boxes_at())
    assert ("score threshold" in stray.excuse) is is_excused


def test_scores_near_a_limit_are_counted_whether_or_not_their_detections_are_paired():
    reference = boxes_at(0, 50, 100, scores=[0.9, 0.03, 0.02])
    candidate = boxes_at(0, 50, 150, scores=[0.9, 0.04, 0.5])
    image = ComparedImage(0, (99, 99), reference, candidate, match_rows(reference, candidate, 0.9))
    parity = judge_detections([image], OUTPUT, TOLERANCES["int8"], score_error=0.05)
    # Two scores of the reference and one of the candidate lie within 0.05 of the threshold 0.01.
    assert parity.near_limit == 3
    assert [each.near_limit for each in parity.strays] == [True, False]


@pytest.mark.parametrize("owner", ["reference", "candidate"])
def test_a_score_at_the_last_row_that_was_kept_is_set_aside(owner):
    full = boxes_at(0, 50, scores=[0.9, 0.5], limit=2)
    other = boxes_at(0, 80, scores=[0.9, 0.49995], limit=2)
    reference, candidate = (full, other) if owner == "reference" else (other, full)
    found = found_strays(reference, candidate)
    assert len(found) == 2
    assert all("last row" in stray.excuse for stray in found)


@pytest.mark.parametrize("owner", ["reference", "candidate"])
def test_the_last_row_of_a_full_list_is_a_limit_for_the_list_that_is_not_full(owner):
    full, free = boxes_at(0, scores=[0.5], limit=1), boxes_at(0, 80, scores=[0.5, 0.49995], limit=9)
    reference, candidate = (full, free) if owner == "reference" else (free, full)
    (stray,) = found_strays(reference, candidate)
    assert f"the {owner}'s last row (0.500000)" in stray.excuse
    assert stray.near_limit


def test_a_list_with_free_rows_has_no_border_at_its_end():
    reference = boxes_at(0, 50, scores=[0.9, 0.5], limit=3)
    (stray,) = found_strays(reference, boxes_at(0, scores=[0.9], limit=3))
    assert stray.excuse == ""


def test_a_score_at_the_last_candidate_is_set_aside():
    """The last candidate is the last box that enters NMS on both sides."""
    candidates = boxes_at(0, 50, 200, scores=[0.9, 0.5, 0.1])
    output = dataclasses.replace(OUTPUT, candidates=2, max_detections=2)
    given = (boxes_at(0), boxes_at(0, 80, scores=[0.9, 0.5]), candidates)
    (stray,) = found_strays(*given, output=output)
    assert "the last box that enters NMS" in stray.excuse
    (stray,) = found_strays(*given)
    assert stray.excuse == ""


def offset_for(iou: float) -> float:
    return 10 * (1 - iou) / (1 + iou)


@pytest.mark.parametrize(("iou", "is_excused"), [(0.4995, True), (0.5005, True), (0.48, False)])
def test_a_box_that_an_iou_near_the_threshold_suppresses_is_set_aside(iou, is_excused):
    candidates = boxes_at(0, offset_for(iou), scores=[0.9, 0.6])
    found = found_strays(candidates.take([0, 1]), candidates.take([0]), candidates)
    assert [bool(stray.excuse) for stray in found] == [is_excused]
    assert not found[0].near_limit


def test_a_survivor_that_the_reference_clearly_suppresses_has_no_excuse():
    candidates = boxes_at(0, offset_for(0.7), scores=[0.9, 0.6])
    (stray,) = found_strays(candidates.take([0]), candidates.take([0, 1]), candidates)
    assert (stray.side, stray.excuse) == ("candidate", "")


def test_a_row_that_a_border_case_suppresses_is_set_aside_too():
    second = offset_for(0.5)
    candidates = boxes_at(0, second, second + offset_for(0.7), scores=[0.9, 0.8, 0.7])
    found = found_strays(candidates.take([0, 1]), candidates.take([0, 2]), candidates)
    assert len(found) == 2
    assert all(stray.excuse for stray in found)


def test_a_box_that_was_no_candidate_has_no_excuse_from_nms():
    candidates = boxes_at(0, offset_for(0.5), scores=[0.9, 0.6])
    found = found_strays(candidates.take([0]), boxes_at(0, 300, scores=[0.9, 0.6]), candidates)
    assert [stray.excuse for stray in found] == [""]


def test_without_candidates_the_rows_of_both_sides_show_the_border():
    reference = boxes_at(0, offset_for(0.5), scores=[0.9, 0.6])
    (stray,) = found_strays(reference, reference.take([0]))
    assert stray.excuse


def test_overlapping_boxes_that_swap_on_a_tie_are_set_aside_but_not_on_a_coarse_error():
    candidates = boxes_at(0, offset_for(0.6), scores=[0.60001, 0.6])
    swapped = found_strays(candidates.take([0]), candidates.take([1]), candidates)
    assert len(swapped) == 2
    assert all(stray.excuse for stray in swapped)
    apart = boxes_at(0, offset_for(0.6), scores=[0.65, 0.6])
    found = found_strays(apart.take([0]), apart.take([1]), apart, score_error=0.1)
    assert not any(stray.excuse for stray in found)

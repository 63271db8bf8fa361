"""How many steps NMS needs, and which boxes are uncertain: a small change may suppress them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effdet_deploy.detection.postprocess import greedy_nms
from effdet_deploy.parity.rows import make_rows
from effdet_deploy.parity.suppression import static_steps, uncertain_rows

MARGIN = 1e-3


def row_of_boxes(offsets, scores=None, classes=None):
    """Return boxes of 10x10 pixels, moved to the right by ``offsets``."""
    boxes = [[offset, 0, offset + 10, 10] for offset in offsets]
    scores = np.linspace(0.9, 0.1, len(boxes)) if scores is None else scores
    return make_rows(np.array(boxes, dtype=float), scores, classes or [0] * len(boxes))


def offset_for(iou: float) -> float:
    """Return how far a box of 10x10 must move to have an IoU of ``iou`` with itself unmoved."""
    return 10 * (1 - iou) / (1 + iou)


@pytest.mark.parametrize("length", [1, 2, 3, 10, 40])
def test_a_chain_of_n_boxes_needs_n_minus_one_steps(length):
    chain = row_of_boxes(np.arange(length) * offset_for(0.6))
    assert static_steps(chain, 0.5) == length - 1


def test_boxes_that_do_not_overlap_need_no_step_and_a_crowd_around_a_box_needs_a_single_step():
    assert static_steps(row_of_boxes([0, 20, 40]), 0.5) == 0
    assert static_steps(row_of_boxes([0, 0.1, 0.2, 0.3]), 0.5) == 1


def test_classes_do_not_suppress_each_other():
    assert static_steps(row_of_boxes([0, 0, 0], classes=[0, 1, 2]), 0.5) == 0


def test_no_candidates_need_no_step():
    assert static_steps(row_of_boxes([]), 0.5) == 0
    assert uncertain_rows(row_of_boxes([]), 0.5, MARGIN, 0).tolist() == []


@pytest.mark.parametrize(
    ("iou", "unsure"), [(0.49, False), (0.4995, True), (0.5005, True), (0.51, False)]
)
def test_an_overlap_near_the_threshold_makes_the_weaker_box_uncertain(iou, unsure):
    pair = row_of_boxes([0, offset_for(iou)])
    assert uncertain_rows(pair, 0.5, MARGIN, 0).tolist() == [False, unsure]


def test_a_box_that_an_uncertain_box_would_suppress_is_uncertain_too():
    second = offset_for(0.5)
    third = second + offset_for(0.7)
    chain = row_of_boxes([0, second, third, 100])
    assert uncertain_rows(chain, 0.5, MARGIN, 0).tolist() == [False, True, True, False]


def test_a_box_that_a_certain_box_suppresses_too_is_certain():
    # The second box, which is uncertain, suppresses the third, but the first suppresses it as well.
    rows = make_rows(
        [[0, 0, 10, 10], [offset_for(0.5), 0, 10 + offset_for(0.5), 10], [1, 0, 11, 10]],
        [0.9, 0.8, 0.7],
        [0, 0, 0],
    )
    assert uncertain_rows(rows, 0.5, MARGIN, 0).tolist() == [False, True, False]


def test_overlapping_boxes_whose_scores_tie_are_both_uncertain():
    pair = row_of_boxes([0, offset_for(0.8)], scores=[0.50001, 0.5])
    assert uncertain_rows(pair, 0.5, MARGIN, 1e-4).tolist() == [True, True]
    assert uncertain_rows(pair, 0.5, MARGIN, 1e-6).tolist() == [False, False]


TABLE = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 2)), max_size=25)


def rows_of_table(table):
    corners = np.array(table, dtype=float).reshape(-1, 3)
    boxes = np.concatenate([corners[:, :2], corners[:, :2] + 8], axis=1)
    return make_rows(boxes, np.linspace(1, 0.1, len(boxes)), corners[:, 2])


@settings(deadline=None, max_examples=60)
@given(TABLE, st.sampled_from([0.3, 0.45, 0.6]))
def test_the_counted_steps_give_greedy_nms_and_one_step_fewer_does_not(table, threshold):
    rows = rows_of_table(table)
    kept = set(greedy_nms(rows.boxes.astype(np.float32), rows.classes, threshold).tolist())
    steps = static_steps(rows, threshold)
    assert set(np.flatnonzero(static_nms(rows, threshold, steps)).tolist()) == kept
    if steps:
        assert set(np.flatnonzero(static_nms(rows, threshold, steps - 1)).tolist()) != kept


def static_nms(rows, threshold, steps):
    """Return the rows that the graph's own formula keeps, computed with the full matrix."""
    from effdet_deploy.parity.rows import iou_matrix

    same = rows.classes[:, None] == rows.classes[None, :]
    beats = np.tril(same & (iou_matrix(rows.boxes, rows.boxes) > threshold), k=-1)
    keep = np.ones(len(rows))
    for _ in range(steps):
        keep = (beats @ keep < 0.5).astype(float)
    return keep


@settings(deadline=None, max_examples=60)
@given(TABLE, st.sampled_from([0.3, 0.45, 0.6]), st.integers(0, 2**32 - 1))
def test_small_changes_of_boxes_change_only_uncertain_rows(table, threshold, seed):
    rows = rows_of_table(table)
    generator = np.random.default_rng(seed)
    moved = make_rows(
        rows.boxes + generator.uniform(-1e-4, 1e-4, rows.boxes.shape), rows.scores, rows.classes
    )
    kept, kept_moved = (
        np.isin(np.arange(len(rows)), greedy_nms(each.boxes, each.classes, threshold))
        for each in (rows, moved)
    )
    changed = kept != kept_moved
    assert not (changed & ~uncertain_rows(rows, threshold, MARGIN, 0)).any()

"""Rows, the detections of one picture, are read from a model's outputs and compared by IoU."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effdet_deploy.detection.postprocess import greedy_nms
from effdet_deploy.errors import TensorError
from effdet_deploy.parity.rows import (
    iou_matrix,
    join_rows,
    make_rows,
    nms_inputs,
    overlapping_pairs,
    rows_from_outputs,
)
from tests.parity.stand_ins import detector_spec, finished, heads_of

PICTURE = np.arange(128 * 128 * 3, dtype=np.uint32).astype(np.uint8).reshape(1, 128, 128, 3)

BOXES = st.lists(
    st.tuples(*[st.integers(0, 9)] * 2, *[st.integers(0, 9)] * 2, st.integers(0, 1)), max_size=12
)


def boxes_of(table):
    corners = np.array(table, dtype=float).reshape(-1, 5)
    return np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:4]], axis=1)


def test_iou_of_half_overlapping_boxes_is_a_third():
    boxes = np.array([[0.0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]])
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(iou_matrix(boxes, boxes), expected)


def test_equal_boxes_without_area_have_an_iou_of_one_and_nan_overlaps_nothing():
    boxes = np.array([[1.0, 1, 1, 1], [2, 2, 2, 2], [np.nan] * 4, [0, 0, np.inf, 1]])
    np.testing.assert_array_equal(iou_matrix(boxes, boxes), np.diag([1.0, 1, 0, 1]))


@settings(deadline=None, max_examples=60)
@given(BOXES, st.sampled_from([0.0, 0.3, 0.5]))
def test_overlapping_pairs_are_those_of_the_full_matrix(table, minimum):
    boxes, classes = boxes_of(table), np.array([row[4] for row in table], dtype=int)
    rows = make_rows(boxes, np.ones(len(boxes)), classes)
    ious = iou_matrix(rows.boxes, rows.boxes)
    expected = {
        (i, j)
        for i in range(len(rows))
        for j in range(len(rows))
        if i != j and classes[i] == classes[j] and ious[i, j] > minimum
    }
    row, other, iou = overlapping_pairs(rows, minimum)
    assert set(zip(row.tolist(), other.tolist(), strict=True)) == expected
    np.testing.assert_array_equal(iou, ious[row, other])


def test_pairs_are_found_across_the_chunks_they_are_searched_in(monkeypatch):
    monkeypatch.setattr("effdet_deploy.parity.rows._PAIR_ROWS", 2)
    rows = make_rows(np.tile([0.0, 0, 1, 1], (5, 1)), np.ones(5), np.zeros(5))
    assert len(overlapping_pairs(rows, 0.5)[0]) == 20


@pytest.mark.parametrize("box_format", ["xyxy", "yxyx"])
def test_rows_of_outputs_are_the_used_ones_in_xyxy(box_format):
    spec = detector_spec(box_format=box_format)
    outputs = finished(heads_of, spec)(PICTURE)
    outputs["num_detections"][0] = 3
    (rows,) = rows_from_outputs(outputs, box_format)
    assert len(rows) == 3
    assert rows.last_score is None
    order = [0, 1, 2, 3] if box_format == "xyxy" else [1, 0, 3, 2]
    np.testing.assert_array_equal(rows.boxes, outputs["detection_boxes"][0, :3][:, order])


def test_only_a_full_list_has_a_last_score():
    spec = detector_spec(max_detections=7)
    (rows,) = rows_from_outputs(finished(heads_of, spec)(PICTURE), "xyxy")
    assert rows.last_score == rows.scores[6]


@pytest.mark.parametrize("count", [-1, 51])
def test_an_impossible_count_is_refused(count):
    outputs = finished(heads_of, detector_spec())(PICTURE)
    outputs["num_detections"][0] = count
    with pytest.raises(TensorError, match=f"is {count}, but the outputs have 50 rows"):
        rows_from_outputs(outputs, "xyxy")


def test_candidates_through_nms_are_the_detections():
    spec = detector_spec()
    heads = heads_of(PICTURE)
    candidates = nms_inputs(heads["class_logits"][0], heads["box_regression"][0], spec)
    assert len(candidates) == 300
    assert candidates.last_score == candidates.scores[-1]
    kept = greedy_nms(candidates.boxes.astype(np.float32), candidates.classes, 0.5, 50)
    (rows,) = rows_from_outputs(finished(heads_of, spec)(PICTURE), "xyxy")
    np.testing.assert_array_equal(candidates.take(kept).boxes, rows.boxes)


def test_candidates_end_at_the_score_threshold():
    heads = heads_of(PICTURE)
    spec = detector_spec(score_threshold=0.8)
    candidates = nms_inputs(heads["class_logits"][0], heads["box_regression"][0], spec)
    assert 0 < len(candidates) < 300
    assert candidates.scores.min() >= 0.8
    assert candidates.last_score is None


def test_joined_rows_are_sorted_by_score():
    first = make_rows(np.zeros((2, 4)), [0.9, 0.1], [0, 1])
    second = make_rows(np.ones((1, 4)), [0.5], [2])
    assert join_rows(first, second).classes.tolist() == [0, 2, 1]


def test_rows_that_are_not_finite_are_counted_once_each():
    boxes = [[0, 0, 1, np.nan], [0, 0, 1, 1], [0, np.inf, 1, 1]]
    assert make_rows(boxes, [np.nan, np.nan, 0.5], [0, 0, 0]).non_finite == 3

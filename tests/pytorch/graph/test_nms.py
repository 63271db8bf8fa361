from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effdet_deploy.detection.postprocess import greedy_nms
from effdet_deploy.exporters.options import DEFAULT_NMS_STEPS
from effdet_deploy.parity.rows import Rows
from effdet_deploy.parity.suppression import static_steps
from effdet_deploy.pytorch.graph.nms import StaticNms

IOU_THRESHOLD = 0.5
CROWDS = 60
CROWD_SIZE = 1000
STEP_MARGIN = 2


def static_keep(boxes: np.ndarray, classes: np.ndarray, steps: int) -> list[int]:
    scores = torch.linspace(1, 0.1, len(boxes))[None]
    keep = StaticNms(IOU_THRESHOLD, steps)(
        torch.from_numpy(boxes)[None], scores, torch.from_numpy(classes)[None]
    )
    return np.flatnonzero(keep[0].numpy()).tolist()


def grouped_keep(
    boxes: np.ndarray, classes: np.ndarray, steps: int, blocks: int, min_rows: int
) -> list[int]:
    nms = StaticNms(IOU_THRESHOLD, steps, blocks)
    nms.min_rows = min_rows
    scores = torch.linspace(1, 0.1, len(boxes))[None]
    keep = nms(torch.from_numpy(boxes)[None], scores, torch.from_numpy(classes)[None])
    return np.flatnonzero(keep[0].numpy()).tolist()


def chain(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes of equal size in a line: neighbors have an IoU of 0.6, second neighbors 0.33."""
    left = np.arange(length, dtype=np.float32) * 25
    boxes = np.stack([np.zeros_like(left), left, np.full_like(left, 100), left + 100], axis=1)
    return boxes, np.zeros(length, dtype=np.int64)


def steps_needed(boxes: np.ndarray, classes: np.ndarray) -> int:
    return static_steps(Rows(boxes, np.linspace(1, 0.1, len(boxes)), classes), IOU_THRESHOLD)


@st.composite
def crowds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.integers(1, 40))
    whole = st.integers(0, 30)
    corners = draw(st.lists(st.tuples(whole, whole), min_size=count, max_size=count))
    sizes = draw(
        st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=count, max_size=count)
    )
    low = np.array(corners, dtype=np.float32)
    boxes = np.concatenate([low, low + np.array(sizes, dtype=np.float32)], axis=1)
    classes = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    return boxes, np.array(classes, dtype=np.int64)


@given(crowds())
@settings(max_examples=200, deadline=None)
def test_static_nms_is_greedy_nms_where_the_chains_fit_the_steps(
    crowd: tuple[np.ndarray, np.ndarray],
) -> None:
    boxes, classes = crowd
    expected = greedy_nms(boxes, classes, IOU_THRESHOLD).tolist()
    assert static_keep(boxes, classes, steps_needed(boxes, classes)) == expected


@pytest.mark.parametrize("length", [2, 3, 17])
def test_n_steps_settle_chains_of_n_plus_one_boxes(length: int) -> None:
    boxes, classes = chain(length)
    expected = greedy_nms(boxes, classes, IOU_THRESHOLD).tolist()
    assert expected == list(range(0, length, 2))
    assert static_keep(boxes, classes, length - 1) == expected


def test_a_longer_chain_keeps_or_drops_boxes_that_greedy_nms_would_not() -> None:
    boxes, classes = chain(20)
    expected = greedy_nms(boxes, classes, IOU_THRESHOLD).tolist()
    found = static_keep(boxes, classes, 6)
    assert found != expected
    assert found[:4] == expected[:4], "the part within the steps is still exact"


def test_the_default_steps_cover_dense_crowds_with_a_margin() -> None:
    rng = np.random.default_rng(0)
    needed = 0
    for _ in range(CROWDS):
        center = rng.uniform(0, 512, (CROWD_SIZE, 2))
        size = rng.uniform(16, 128, (CROWD_SIZE, 2))
        boxes = np.concatenate([center - size / 2, center + size / 2], 1).astype(np.float32)
        needed = max(needed, steps_needed(boxes, np.zeros(CROWD_SIZE, dtype=np.int64)))
    assert needed > 4, "the crowds are dense enough to mean something"
    assert needed + STEP_MARGIN <= DEFAULT_NMS_STEPS


@given(crowds(), st.integers(1, 5), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_groups_of_any_size_keep_the_boxes_that_greedy_nms_keeps(
    crowd: tuple[np.ndarray, np.ndarray], blocks: int, min_rows: int
) -> None:
    boxes, classes = crowd
    expected = greedy_nms(boxes, classes, IOU_THRESHOLD).tolist()
    assert grouped_keep(boxes, classes, len(boxes), blocks, min_rows) == expected


def test_the_boxes_that_a_group_keeps_suppress_boxes_of_later_groups() -> None:
    boxes, classes = chain(9)
    # Two steps settle a group of three boxes, but not a group of nine.
    assert grouped_keep(boxes, classes, 2, blocks=3, min_rows=3) == [0, 2, 4, 6, 8]
    assert grouped_keep(boxes, classes, 2, blocks=1, min_rows=3) != [0, 2, 4, 6, 8]


def test_boxes_of_other_classes_and_boxes_without_area_suppress_nothing() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 5], [5, 5, 5, 5]], np.float32)
    assert static_keep(boxes, np.array([0, 1, 2, 2]), 4) == [0, 1, 2, 3]

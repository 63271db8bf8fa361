"""Analysis of an NMS: border cases in it, and how many steps the static NMS needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.parity.rows import overlapping_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effdet_deploy.parity.rows import Rows

    Mask = NDArray[np.bool_]


def static_steps(inputs: Rows, iou_threshold: float) -> int:
    """Return how many steps the static NMS needs until it equals greedy NMS on ``inputs``.

    In a step, a box is kept if no kept box before it, of its class, overlaps it by more than the
    threshold; at the start all boxes are kept. A chain of n+1 boxes, where every box suppresses the
    next one, takes n steps.
    """
    row, other, _ = overlapping_pairs(inputs, iou_threshold)
    # Rows are sorted: the earlier row has the better score, or won the tie.
    earlier = other < row
    row, other = row[earlier], other[earlier]
    keep = np.ones(len(inputs), dtype=bool)
    steps = 0
    while True:
        updated = ~_any_of(row, keep[other], len(inputs))
        if (updated == keep).all():
            return steps
        keep, steps = updated, steps + 1


def uncertain_rows(
    inputs: Rows, iou_threshold: float, iou_margin: float, score_error: float
) -> Mask:
    """Mark the boxes for which a border case decides whether they survive NMS.

    A border case is an IoU within ``iou_margin`` of the threshold, or two overlapping boxes whose
    scores lie within ``score_error`` of each other, so that either may come first. Boxes that
    depend on an uncertain box are uncertain too: a box is surely suppressed by one that surely
    survives, and surely survives if no box that possibly survives could suppress it.

    Returns:
        bool ``[n]``.
    """
    row, other, iou = overlapping_pairs(inputs, iou_threshold - iou_margin)
    lead = inputs.scores[other] - inputs.scores[row]
    before = (lead > 0) | ((lead == 0) & (other < row))
    possible = before | (lead >= -score_error)
    certain = before & (lead > score_error) & (iou > iou_threshold + iou_margin)
    sure, maybe = np.zeros(len(inputs), dtype=bool), np.ones(len(inputs), dtype=bool)
    # The loop alternates two monotone bounds, so it ends with the smallest uncertain set.
    while True:
        next_maybe = ~_any_of(row, certain & sure[other], len(inputs))
        next_sure = ~_any_of(row, possible & next_maybe[other], len(inputs))
        if (next_maybe == maybe).all() and (next_sure == sure).all():
            return maybe & ~sure
        sure, maybe = next_sure, next_maybe


def _any_of(rows: NDArray[np.int64], holds: Mask, count: int) -> Mask:
    """Return for all ``count`` rows whether one of their pairs ``holds``."""
    result: Mask = np.bincount(rows[holds], minlength=count) > 0
    return result

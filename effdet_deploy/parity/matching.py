"""Which detections of two runs are the same, and which of the rest are mere border cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from effdet_deploy.parity.rows import iou_matrix, join_rows
from effdet_deploy.parity.suppression import uncertain_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effdet_deploy.parity.rows import Rows
    from effdet_deploy.spec import OutputSpec

    Side = Literal["reference", "candidate"]

NMS_MARGIN = 1e-3
"""An IoU this close to the NMS threshold may fall on either side of it (design: verification)."""


@dataclass(frozen=True, eq=False)
class Matching:
    """One image's detections, paired.

    Attributes:
        pairs: int64 ``[n,2]``: row in the reference, row in the candidate.
        missed: int64 ``[m]``: rows that only the reference has.
        extra: int64 ``[e]``: rows that only the candidate has.
        box_difference: the largest difference of a coordinate among pairs, in pixels.
        score_difference: the largest difference of scores among pairs.
    """

    pairs: NDArray[np.int64]
    missed: NDArray[np.int64]
    extra: NDArray[np.int64]
    box_difference: float
    score_difference: float


@dataclass(frozen=True)
class Stray:
    """A detection that one side has and the other has not.

    ``box`` is xyxy in pixels. ``excuse`` says which border it lies on, and is empty where it
    counts against the candidate.
    """

    image: int
    side: Side
    label: int
    score: float
    box: tuple[float, float, float, float]
    excuse: str = ""


def match_rows(reference: Rows, candidate: Rows, iou_threshold: float) -> Matching:
    """Pair rows of equal class whose IoU is at least ``iou_threshold``, the best IoU first.

    Equal IoUs go to the nearer score. The result does not depend on which side is the reference;
    above an IoU of 0.8 it is also the only one there is among survivors of an NMS at 0.5, as no
    box can be that near to two that overlap so little.
    """
    ious = iou_matrix(reference.boxes, candidate.boxes)
    same_class = reference.classes[:, None] == candidate.classes[None, :]
    rows, others = np.nonzero(same_class & (ious >= iou_threshold))
    distance = np.abs(reference.scores[rows] - candidate.scores[others])
    order = np.lexsort(
        (np.maximum(rows, others), np.minimum(rows, others), distance, -ious[rows, others])
    )
    free, free_other = np.ones(len(reference), dtype=bool), np.ones(len(candidate), dtype=bool)
    pairs = []
    for row, other in zip(rows[order], others[order], strict=True):
        if free[row] and free_other[other]:
            pairs.append((row, other))
            free[row] = free_other[other] = False
    paired = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    one, two = reference.take(paired[:, 0]), candidate.take(paired[:, 1])
    return Matching(
        paired,
        np.flatnonzero(free),
        np.flatnonzero(free_other),
        float(np.abs(one.boxes - two.boxes).max(initial=0.0)),
        float(np.abs(one.scores - two.scores).max(initial=0.0)),
    )


def strays(
    image: int,
    reference: Rows,
    candidate: Rows,
    matching: Matching,
    output: OutputSpec,
    score_error: float,
    candidates: Rows | None = None,
    iou_threshold: float = 0.9,
) -> list[Stray]:
    """Return the unpaired detections of an image, each with its excuse if it has one.

    A detection that has its counterpart needs no excuse. An unpaired one is excused where its
    score lies within ``score_error`` of the score threshold, of the last row that was kept on
    either side, or of the last candidate; or where its survival of NMS hangs on a border case
    (see :func:`~effdet_deploy.parity.suppression.uncertain_rows`).

    Args:
        image: the image's index, to be reported.
        reference: detections of the reference.
        candidate: detections of the candidate.
        matching: of these two.
        output: score threshold and NMS threshold.
        score_error: measured between the two.
        candidates: what entered the reference's NMS, best score first. Without it the rows that
            are left of both sides must do.
        iou_threshold: from which IoU a box counts as one of ``candidates``.
    """
    pool = candidates
    if pool is None:
        pool = join_rows(reference, candidate.take(matching.extra))
    borders = _score_borders(reference, candidate, candidates, output)
    uncertain: NDArray[np.bool_] | None = None
    found = []
    sides: tuple[tuple[Side, Rows, NDArray[np.int64]], ...] = (
        ("reference", reference, matching.missed),
        ("candidate", candidate, matching.extra),
    )
    for side, rows, indices in sides:
        for index in indices:
            excuse = _score_excuse(float(rows.scores[index]), borders, score_error)
            if not excuse:
                if uncertain is None:
                    uncertain = uncertain_rows(pool, output.iou_threshold, NMS_MARGIN, score_error)
                excuse = _nms_excuse(rows.take(index[None]), pool, uncertain, iou_threshold)
            found.append(_stray(image, side, rows, int(index), excuse))
    return found


def _score_borders(
    reference: Rows, candidate: Rows, candidates: Rows | None, output: OutputSpec
) -> list[tuple[str, float]]:
    """Return the scores at which a detection may fall out, and what each is called."""
    borders = [
        ("the score threshold", output.score_threshold),
        ("the reference's last row", reference.last_score),
        ("the candidate's last row", candidate.last_score),
        ("the last candidate", candidates.last_score if candidates is not None else None),
    ]
    return [(name, score) for name, score in borders if score is not None]


def _score_excuse(score: float, borders: list[tuple[str, float]], score_error: float) -> str:
    for name, border in borders:
        if abs(score - border) <= score_error:
            return f"score within {score_error:.1e} of {name} ({border:.6f})"
    return ""


def _nms_excuse(row: Rows, pool: Rows, uncertain: NDArray[np.bool_], iou_threshold: float) -> str:
    """Return the excuse of one detection whose counterpart in ``pool`` is uncertain."""
    ious = iou_matrix(row.boxes, pool.boxes)[0]
    same = (pool.classes == row.classes[0]) & (ious >= iou_threshold)
    if not same.any():
        return ""
    nearest = np.lexsort((np.abs(pool.scores - row.scores[0]), -np.where(same, ious, -1.0)))[0]
    return "its suppression hangs on an IoU or score at the border" if uncertain[nearest] else ""


def _stray(image: int, side: Side, rows: Rows, index: int, excuse: str) -> Stray:
    x1, y1, x2, y2 = rows.boxes[index].tolist()
    label, score = int(rows.classes[index]), float(rows.scores[index])
    return Stray(image, side, label, score, (x1, y1, x2, y2), excuse)

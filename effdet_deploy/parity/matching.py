"""Which detections of two runs are the same, and which of the rest are mere border cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from effdet_deploy.parity.rows import iou_matrix, join_rows
from effdet_deploy.parity.suppression import uncertain_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import OutputSpec
    from effdet_deploy.parity.rows import Rows

    Side = Literal["reference", "candidate"]

NMS_MARGIN = 1e-3
"""An IoU this close to the NMS threshold may fall on either side of it."""
TIE = 2.5e-4
"""Scores further apart than this come in an order that means something, however coarse the
precision: which of two overlapping boxes survives is then a finding."""


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


@dataclass(frozen=True, eq=False)
class ImagePair:
    """What both sides found in one image.

    Attributes:
        image: the image's index.
        reference: detections of the reference.
        candidate: detections of the candidate.
        candidates: what entered the reference's NMS, best score first; None where it is unknown.
    """

    image: int
    reference: Rows
    candidate: Rows
    candidates: Rows | None = None


def strays(
    pair: ImagePair,
    matching: Matching,
    output: OutputSpec,
    score_error: float,
    iou_threshold: float,
) -> list[Stray]:
    """Return the unpaired detections of an image, each with its excuse if it has one.

    A detection that has its counterpart needs no excuse. An unpaired one is excused where its
    score lies within ``score_error`` of the score threshold, of the last row that was kept on
    either side, or of the last candidate; or where its survival of NMS hangs on a border case
    (see :func:`~effdet_deploy.parity.suppression.uncertain_rows`).

    Args:
        pair: the image. Where its candidates are unknown, the rows that NMS left must do.
        matching: of its detections.
        output: score threshold and NMS threshold.
        score_error: measured between the two sides.
        iou_threshold: from which IoU a box counts as one of the candidates.
    """
    if not len(matching.missed) and not len(matching.extra):
        return []
    borders = _borders(pair, matching, output, score_error, iou_threshold)
    sides: tuple[tuple[Side, Rows], ...] = (
        ("reference", pair.reference.take(matching.missed)),
        ("candidate", pair.candidate.take(matching.extra)),
    )
    return [
        _stray(pair.image, side, rows.take([index]), borders)
        for side, rows in sides
        for index in range(len(rows))
    ]


@dataclass(frozen=True, eq=False)
class _Borders:
    """Where a detection may fall out: named scores, and the candidates NMS is unsure about."""

    scores: list[tuple[str, float]]
    score_error: float
    pool: Rows
    uncertain: NDArray[np.bool_]
    iou_threshold: float

    def excuse(self, row: Rows) -> str:
        """Return the excuse of one detection, or nothing."""
        score = float(row.scores[0])
        for name, border in self.scores:
            if abs(score - border) <= self.score_error:
                return f"score within {self.score_error:.1e} of {name} ({border:.6f})"
        ious = iou_matrix(row.boxes, self.pool.boxes)[0]
        same = (self.pool.classes == row.classes[0]) & (ious >= self.iou_threshold)
        if not same.any():
            return ""
        nearest = np.lexsort((np.abs(self.pool.scores - score), -np.where(same, ious, -1.0)))[0]
        unsure = self.uncertain[nearest]
        return "its suppression hangs on an IoU or score at the border" if unsure else ""


def _borders(
    pair: ImagePair,
    matching: Matching,
    output: OutputSpec,
    score_error: float,
    iou_threshold: float,
) -> _Borders:
    scores = [
        ("the score threshold", output.score_threshold),
        ("the reference's last row", pair.reference.last_score),
        ("the candidate's last row", pair.candidate.last_score),
        ("the last candidate", pair.candidates.last_score if pair.candidates else None),
    ]
    pool = pair.candidates
    if pool is None:
        pool = join_rows(pair.reference, pair.candidate.take(matching.extra))
    tie = min(score_error, TIE)
    return _Borders(
        [(name, score) for name, score in scores if score is not None],
        score_error,
        pool,
        uncertain_rows(pool, output.iou_threshold, NMS_MARGIN, tie),
        iou_threshold,
    )


def _stray(image: int, side: Side, row: Rows, borders: _Borders) -> Stray:
    x1, y1, x2, y2 = row.boxes[0].tolist()
    label, score = int(row.classes[0]), float(row.scores[0])
    return Stray(image, side, label, score, (x1, y1, x2, y2), borders.excuse(row))

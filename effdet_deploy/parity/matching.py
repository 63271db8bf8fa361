"""Pairing of the detections of two runs, and border cases among detections without a partner.

A border case is a detection that rounding alone may add or remove.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from effdet_deploy.parity.rows import iou_matrix, join_rows
from effdet_deploy.parity.suppression import uncertain_rows
from effdet_deploy.parity.verdict import DetectionParity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import OutputSpec
    from effdet_deploy.parity.rows import Rows
    from effdet_deploy.parity.tolerances import Tolerance

    Side = Literal["reference", "candidate"]

NMS_MARGIN = 1e-3
"""An IoU this close to the NMS threshold may lie above it in one run and below it in the other."""
TIE = 2.5e-4
"""Scores that differ by more than this have a meaningful order in any precision. If reference and
candidate then keep different boxes of an overlapping pair, that is a real difference."""


@dataclass(frozen=True, eq=False)
class Matching:
    """The detections of one image, paired.

    Attributes:
        pairs: int64 ``[n,2]``: row in the reference, row in the candidate.
        missed: int64 ``[m]``: rows that only the reference has.
        extra: int64 ``[e]``: rows that only the candidate has.
        box_difference: the largest coordinate difference among pairs, in pixels.
        score_difference: the largest score difference among pairs.
    """

    pairs: NDArray[np.int64]
    missed: NDArray[np.int64]
    extra: NDArray[np.int64]
    box_difference: float
    score_difference: float


@dataclass(frozen=True)
class Stray:
    """A detection that only the reference or only the candidate has.

    ``box`` is xyxy in pixels. ``excuse`` says why it is a border case, and is empty if it counts
    against the candidate. ``near_limit`` says whether the excuse is a score near a limit.
    """

    image: int
    side: Side
    label: int
    score: float
    box: tuple[float, float, float, float]
    excuse: str = ""
    near_limit: bool = False


def match_rows(reference: Rows, candidate: Rows, iou_threshold: float) -> Matching:
    """Pair rows of equal class whose IoU is at least ``iou_threshold``, the best IoU first.

    Among equal IoUs, the pair with the nearer scores wins. The result does not depend on which of
    the two is the reference. Above an IoU of 0.8 the result is unique for boxes that survived an
    NMS at 0.5, since no box has such an IoU with both of two boxes that overlap each other by 0.5
    or less.
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
class ComparedImage:
    """The detections of reference and candidate on a picture, at or above the score threshold.

    Attributes:
        index: the number of the picture.
        size: (height, width) of the picture.
        reference: the detections of the reference.
        candidate: the detections of the candidate.
        matching: how the two sets are paired.
        nms_inputs: the boxes that entered the reference's NMS, best score first; None if unknown.
    """

    index: int
    size: tuple[int, int]
    reference: Rows
    candidate: Rows
    matching: Matching
    nms_inputs: Rows | None = None


def strays(
    image: ComparedImage, output: OutputSpec, score_error: float, iou_threshold: float
) -> list[Stray]:
    """Return the unpaired detections of an image, with an excuse for border cases.

    An unpaired detection is excused if its score lies within ``score_error`` of the score
    threshold, of the last row that the reference or the candidate kept, or of the last box that
    entered NMS; or if a border case decides whether it survives NMS (see
    :func:`~effdet_deploy.parity.suppression.uncertain_rows`).

    Args:
        image: the picture; if its NMS inputs are unknown, the rows that NMS left are used.
        output: score threshold, NMS threshold, and how many boxes enter NMS in both models.
        score_error: the measured difference of scores between reference and candidate.
        iou_threshold: the IoU from which an unpaired detection counts as the same box as an NMS
            input.
    """
    missed = image.reference.take(image.matching.missed)
    extra = image.candidate.take(image.matching.extra)
    if not len(missed) and not len(extra):
        return []
    pool = image.nms_inputs
    if pool is None:
        pool = join_rows(image.reference, extra)
    limits = _score_limits(image, output)
    tie = min(score_error, TIE)
    entered = pool.as_nms_sees_them(output)
    uncertain = uncertain_rows(entered, output.iou_threshold, NMS_MARGIN, tie)
    sides: tuple[tuple[Side, Rows], ...] = (("reference", missed), ("candidate", extra))
    found = []
    for side, rows in sides:
        may_cross = _near(rows.scores, limits, score_error)
        columns = (rows.boxes.tolist(), rows.scores.tolist(), rows.classes.tolist(), may_cross)
        for box, score, label, close in zip(*columns, strict=True):
            excuse, near_limit = "", bool(close.any())
            if near_limit:
                name, limit = [*limits.items()][close.argmax()]
                excuse = f"score within {score_error:.1e} of {name} ({limit:.6f})"
            else:
                same = pool.classes == label
                ious = np.where(same, iou_matrix(np.array([box]), pool.boxes)[0], -1.0)
                near = np.lexsort((np.abs(pool.scores - score), -ious))[:1]
                if (uncertain[near] & (ious[near] >= iou_threshold)).any():
                    excuse = "its suppression depends on an IoU or score at the border"
            found.append(Stray(image.index, side, label, score, tuple(box), excuse, near_limit))
    return found


def _score_limits(image: ComparedImage, output: OutputSpec) -> dict[str, float]:
    """Return the scores of an image below which a detection is left out, by their names."""
    limits = {
        "the score threshold": output.score_threshold,
        "the reference's last row": image.reference.last_score,
        "the candidate's last row": image.candidate.last_score,
        "the last box that enters NMS": _last_score(image.nms_inputs, output.candidates),
    }
    return {name: limit for name, limit in limits.items() if limit is not None}


def _near(
    scores: NDArray[np.float64], limits: Mapping[str, float], score_error: float
) -> NDArray[np.bool_]:
    """Return whether each score may cross each limit, bool ``[scores, limits]``."""
    distances = np.abs(scores[:, None] - np.array([*limits.values()]))
    near: NDArray[np.bool_] = distances <= score_error
    return near


def _near_limit(image: ComparedImage, output: OutputSpec, score_error: float) -> int:
    """Count the detections of both runs, paired or not, whose score may cross a limit."""
    scores = np.concatenate([image.reference.scores, image.candidate.scores])
    return int(_near(scores, _score_limits(image, output), score_error).any(axis=1).sum())


def _last_score(inputs: Rows | None, count: int) -> float | None:
    """Return the score of the last of ``count`` boxes that enter NMS; None if all boxes enter."""
    is_full = inputs is not None and len(inputs) >= count
    return float(inputs.scores[count - 1]) if inputs is not None and is_full else None


def judge_detections(
    images: Sequence[ComparedImage],
    output: OutputSpec,
    tolerance: Tolerance,
    score_error: float = 0.0,
) -> DetectionParity:
    """Judge the detections of all images; the largest score error decides what a border case is.

    Args:
        images: all images that were compared.
        output: score threshold and NMS threshold.
        tolerance: the required share of matches, and when a match counts.
        score_error: the measured difference of raw scores; 0 if they are unknown.
    """
    matchings = [image.matching for image in images]
    score_difference = max((each.score_difference for each in matchings), default=0.0)
    score_error = min(max(score_error, score_difference), tolerance.score_error)
    return DetectionParity(
        images=len(images),
        reference_count=sum(len(each.reference) for each in images),
        candidate_count=sum(len(each.candidate) for each in images),
        matched=sum(len(each.pairs) for each in matchings),
        strays=tuple(
            stray for image in images for stray in strays(image, output, score_error, tolerance.iou)
        ),
        iou=tolerance.iou,
        required=tolerance.matched,
        box_difference=max((each.box_difference for each in matchings), default=0.0),
        score_difference=score_difference,
        score_error=score_error,
        near_limit=sum(_near_limit(each, output, score_error) for each in images),
        non_finite=sum(each.reference.non_finite + each.candidate.non_finite for each in images),
    )

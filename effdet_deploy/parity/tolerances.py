"""How much each precision may differ from the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effdet_deploy.artifact.spec import Precision

OWN_ERROR_FACTOR = 4.0
"""Heads may differ by this many times the network's own FP32 error against float64."""
MAX_SET_ASIDE = 0.05
"""Above this share of border cases nothing is concluded from detections."""


@dataclass(frozen=True)
class Tolerance:
    """What a precision must reach.

    Attributes:
        heads: largest absolute error of a head's element; None where only detections are judged.
        matched: share of detections that must have a counterpart; None where something else, such
            as an mAP budget, decides.
        iou: from which IoU a detection counts as the same.
        score_error: what the measured score error is capped at when border cases are told: a
            larger difference is a finding, not a tie.
        least_snr_db: what the heads must reach where ``heads`` is None and detections prove
            nothing, as on pictures that show none of the detector's classes. Where detections
            prove something, they alone decide.
    """

    heads: float | None
    matched: float | None
    iou: float
    score_error: float
    least_snr_db: float | None = None


TOLERANCES: dict[Precision, Tolerance] = {
    # The score's slope over its logit is at most 1/4.
    "fp32": Tolerance(heads=1e-3, matched=0.999, iou=0.99, score_error=2.5e-4),
    # Below what FP16 leaves of heads that compute in it as they should.
    "fp16": Tolerance(heads=None, matched=0.99, iou=0.95, score_error=0.01, least_snr_db=35.0),
    # Below what any recipe of docs/precision.md leaves of a trained detector's heads.
    "int8": Tolerance(heads=None, matched=0.90, iou=0.90, score_error=0.05, least_snr_db=12.0),
}
"""By the precision written into the graph; the coarser of the two sides counts."""


def tolerance_for(precision: Precision, *, has_budget: bool) -> Tolerance:
    """Return what an export must reach: where an mAP budget was met, that decides instead."""
    asked = TOLERANCES[precision]
    return replace(asked, matched=None) if has_budget else asked


def coarser(one: Precision, other: Precision) -> Precision:
    """Return the less exact of two precisions."""
    return max(one, other, key=list(TOLERANCES).index)

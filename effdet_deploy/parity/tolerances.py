"""How much an artifact may differ from its reference, by precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effdet_deploy.artifact.spec import Precision

OWN_ERROR_FACTOR = 4.0
"""Heads may differ by this many times the network's own FP32 error against float64."""
MAX_SET_ASIDE = 0.05
"""If more than this share of detections are border cases, detections prove nothing."""


@dataclass(frozen=True)
class Tolerance:
    """The requirements for a precision.

    Attributes:
        heads: largest allowed absolute error of an element of the heads; if it is None, only
            detections are judged.
        matched: share of detections that must have a counterpart; None where another criterion,
            such as an mAP budget, decides.
        iou: the IoU from which two detections count as a match.
        score_error: upper limit for the measured score error that border cases are judged with: a
            larger difference is a finding, not a tie.
        least_snr_db: signal-to-noise ratio in decibels that the heads must reach if ``heads`` is
            None and detections prove nothing, as on pictures without objects of the detector's
            classes. If detections prove something, they alone decide.
    """

    heads: float | None
    matched: float | None
    iou: float
    score_error: float
    least_snr_db: float | None = None


TOLERANCES: dict[Precision, Tolerance] = {
    # A score changes by at most 1/4 of the change of its logit.
    "fp32": Tolerance(heads=1e-3, matched=0.999, iou=0.99, score_error=2.5e-4),
    # 35 dB is below the ratio of heads that are correctly computed in FP16.
    "fp16": Tolerance(heads=None, matched=0.99, iou=0.95, score_error=0.01, least_snr_db=35.0),
    # 12 dB is below the ratio of a trained detector with any recipe in docs/precision.md.
    "int8": Tolerance(heads=None, matched=0.90, iou=0.90, score_error=0.05, least_snr_db=12.0),
}
"""Tolerances by the precision in the graph; of two models, the coarser precision counts."""


def tolerance_for(precision: Precision, *, has_budget: bool) -> Tolerance:
    """Return the tolerance for an export; if an mAP budget was met, detections do not decide."""
    asked = TOLERANCES[precision]
    return replace(asked, matched=None) if has_budget else asked


def coarser(one: Precision, other: Precision) -> Precision:
    """Return the coarser of two precisions."""
    return max(one, other, key=list(TOLERANCES).index)

"""ParityReport: the results of a comparison, and the verdict that follows from them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from effdet_deploy.parity.fp16_cost import OWN_FP16_FACTOR
from effdet_deploy.parity.tolerances import MAX_SET_ASIDE, OWN_ERROR_FACTOR

if TYPE_CHECKING:
    from effdet_deploy.parity.fp16_cost import LevelCost
    from effdet_deploy.parity.matching import Stray
    from effdet_deploy.parity.metrics import TensorErrors

Status = Literal["passed", "failed", "inconclusive"]


@dataclass(frozen=True)
class OutputParity:
    """One raw output of the network compared with the reference's.

    Attributes:
        name: the name of the output.
        errors: the errors of all images and batch sizes together.
        by_batch: (batch size, largest error), in the order of the runs.
        tolerance: the allowed absolute error; None if the output is measured but not judged.
        own_error: largest error of the reference itself against float64, if measured.
        least_snr_db: signal-to-noise ratio from which the output matches if ``tolerance`` is None;
            it only counts if detections prove nothing and ``levels`` are unknown.
        levels: the cost of FP16 per pyramid level, if the output is FP16 and the cost for the
            network itself was measured.
        fp16_snr_db: signal-to-noise ratio of the output when the reference's network runs in FP16.
    """

    name: str
    errors: TensorErrors
    by_batch: tuple[tuple[int, float], ...] = ()
    tolerance: float | None = None
    own_error: float | None = None
    least_snr_db: float | None = None
    levels: tuple[LevelCost, ...] = ()
    fp16_snr_db: float | None = None

    @property
    def worst_level(self) -> LevelCost | None:
        """The level that comes nearest to its limit, or exceeds it most."""
        return max(self.levels, key=lambda each: each.used, default=None)

    @property
    def allowed(self) -> float | None:
        """The allowed absolute error, which takes the network's own error into account."""
        if self.tolerance is None:
            return None
        return max(self.tolerance, OWN_ERROR_FACTOR * (self.own_error or 0.0))

    @property
    def is_judged(self) -> bool:
        """Whether the output must fulfill a requirement."""
        return self.tolerance is not None or self.least_snr_db is not None or bool(self.levels)

    @property
    def matches(self) -> bool:
        """Whether the output equals the reference's, within its precision."""
        known = bool(self.levels) or self.least_snr_db is None
        enough = known or self.errors.snr_db >= (self.least_snr_db or 0.0)
        return self.status == "passed" and enough

    @property
    def status(self) -> Status:
        """``failed`` if the error is too large or a value is not finite."""
        allowed = math.inf if self.allowed is None else self.allowed
        own = OWN_ERROR_FACTOR * (self.own_error or 0.0)
        costs = all(each.error <= max(each.allowed, own) for each in self.levels)
        return "passed" if costs and self.errors.within(allowed) else "failed"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a document, which may hold NaN and infinity."""
        errors = self.errors
        return {
            "name": self.name,
            "status": self.status,
            "largest_error": errors.largest,
            "mean_error": errors.mean,
            "cosine": errors.cosine,
            "snr_db": errors.snr_db,
            "passing_tolerance": errors.passing_tolerance,
            "allowed": self.allowed,
            "own_error": self.own_error,
            "fp16_snr_db": self.fp16_snr_db,
            "levels": [dataclasses.asdict(each) for each in self.levels],
            "largest_error_by_batch": {str(size): error for size, error in self.by_batch},
            "elements": errors.count,
            "non_finite": {
                "reference": errors.non_finite_reference,
                "candidate": errors.non_finite_candidate,
            },
            "mismatch": errors.mismatch,
        }


@dataclass(frozen=True)
class DetectionParity:
    """The detections of all images compared with the reference's.

    Attributes:
        images: how many images were compared; an image at two batch sizes counts twice.
        reference_count: the number of detections of the reference.
        candidate_count: the number of detections of the candidate.
        matched: the number of pairs of equal class with an IoU of ``iou`` or more.
        strays: detections without counterpart, border cases included.
        iou: the IoU from which two detections count as a match.
        required: the share that must be matched; None if it is measured but not judged.
        box_difference: largest coordinate difference among pairs, in pixels.
        score_difference: largest score difference among pairs.
        score_error: a score this near to a limit is a border case.
        near_limit: how many detections of reference and candidate, paired or not, have such a
            score.
        non_finite: how many rows of reference and candidate together hold a NaN or infinity.
        own_share: share of the reference's own detections that its float64 run confirms, if
            measured: no artifact can be required to do better.
        fp16_share: share of the reference's detections that its network still finds in FP16, border
            cases included, if the candidate is FP16 and this was measured.
        broken: a sentence that says why nothing could be compared, if so.
    """

    images: int
    reference_count: int
    candidate_count: int
    matched: int
    strays: tuple[Stray, ...]
    iou: float
    required: float | None
    box_difference: float = 0.0
    score_difference: float = 0.0
    score_error: float = 0.0
    near_limit: int = 0
    non_finite: int = 0
    own_share: float | None = None
    fp16_share: float | None = None
    broken: str = ""

    @property
    def set_aside(self) -> tuple[Stray, ...]:
        """The strays that are border cases."""
        return tuple(stray for stray in self.strays if stray.excuse)

    @property
    def missed(self) -> tuple[Stray, ...]:
        """Detections that only the reference has, without the border cases."""
        return tuple(e for e in self.strays if e.side == "reference" and not e.excuse)

    @property
    def extra(self) -> tuple[Stray, ...]:
        """Detections that only the candidate has, without the border cases."""
        return tuple(e for e in self.strays if e.side == "candidate" and not e.excuse)

    @property
    def total(self) -> int:
        """The number of detections of reference and candidate together."""
        return self.reference_count + self.candidate_count

    @property
    def plain_share(self) -> float:
        """Matched share of all detections, border cases included; NaN without detections."""
        return 2 * self.matched / self.total if self.total else math.nan

    @property
    def share(self) -> float:
        """Matched share of the detections that are not border cases; NaN if all are."""
        judged = self.total - len(self.set_aside)
        return 2 * self.matched / judged if judged else math.nan

    @property
    def set_aside_share(self) -> float:
        """Share of border cases among detections whose score is near no limit.

        It is NaN if all scores are near a limit, or if there are no detections.

        How many scores are near a limit, such as a threshold of 0.01, depends on how many weak
        detections the pictures have. It says nothing about the strong ones.
        """
        clear = self.total - self.near_limit
        doubtful = sum(not each.near_limit for each in self.set_aside)
        return doubtful / clear if clear else math.nan

    @property
    def status(self) -> Status:
        """The verdict on the detections; :attr:`reason` explains it."""
        return self._verdict[0]

    @property
    def reason(self) -> str:
        """Why :attr:`status` is what it is, as a clause."""
        return self._verdict[1]

    @property
    def _verdict(self) -> tuple[Status, str]:
        if self.broken:
            return "failed", self.broken
        if self.non_finite:
            return "failed", f"{self.non_finite} rows or raw values are NaN or infinite"
        if not self.total:
            return "inconclusive", "nothing was detected on either side"
        if self.required is None:
            return "passed", "measured, not judged"
        asked = f"at least {self.required:.1%} is required"
        # Enough detections match even if all border cases count, so no border case is left out.
        if self.plain_share >= self.required:
            return "passed", asked
        own_loss = 0.0 if self.fp16_share is None else 1 - self.fp16_share
        if 1 - self.plain_share <= OWN_FP16_FACTOR * own_loss:
            said = f"the network itself keeps {1 - own_loss:.1%} of its detections in FP16"
            return "passed", said
        if self.near_limit == self.total:
            return "inconclusive", "the scores of all detections are near a limit"
        if self.set_aside_share > MAX_SET_ASIDE:
            return "inconclusive", f"{self.set_aside_share:.1%} of the detections are border cases"
        if self.share >= self.required:
            return "passed", asked
        if self.own_share is not None and self.own_share < self.required:
            return "inconclusive", (
                f"the network's own float64 run confirms only {self.own_share:.1%} of its "
                "detections"
            )
        return "failed", asked

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a document, which may hold NaN and infinity."""
        return {
            "status": self.status,
            "reason": self.reason,
            "images": self.images,
            "reference": self.reference_count,
            "candidate": self.candidate_count,
            "matched": self.matched,
            "matched_share": self.share,
            "required_share": self.required,
            "own_share": self.own_share,
            "fp16_share": self.fp16_share,
            "iou": self.iou,
            "largest_box_difference": self.box_difference,
            "largest_score_difference": self.score_difference,
            "score_error": self.score_error,
            "non_finite": self.non_finite,
            "missed": [dataclasses.asdict(stray) for stray in self.missed],
            "extra": [dataclasses.asdict(stray) for stray in self.extra],
            "set_aside": [dataclasses.asdict(stray) for stray in self.set_aside],
        }


@dataclass(frozen=True)
class ChainParity:
    """Chains of boxes in which every box suppresses the next one, as found on the images.

    Attributes:
        needed: how many steps the static NMS needs to be exact on all images.
        allowed: how many steps the graph has; None if its NMS does not work in steps.
    """

    needed: int
    allowed: int | None

    @property
    def fits(self) -> bool:
        """Whether the graph's NMS is exact on these images."""
        return self.allowed is None or self.needed <= self.allowed


@dataclass(frozen=True)
class ReachParity:
    """How many of the reference's NMS inputs give all its rows, if the candidate has fewer inputs.

    Attributes:
        needed: how many NMS inputs are enough on every image.
        allowed: how many boxes enter the candidate's NMS.
        known: how many boxes enter the reference's NMS.
        last_score: the highest score of the last of the ``allowed`` boxes, among the images that
            need more boxes; None if no image needs more.
    """

    needed: int
    allowed: int
    known: int
    last_score: float | None = None

    @property
    def fits(self) -> bool:
        """Whether the candidate's number of NMS inputs loses no row on these images."""
        return self.needed <= self.allowed


@dataclass(frozen=True)
class ParityReport:
    """The comparison of a candidate with its reference.

    Attributes:
        precision: the precision that the tolerances belong to.
        images: the number of distinct images.
        batch_sizes: the batch sizes that were run.
        outputs: the raw outputs; empty if only detections could be compared.
        detections: the detections; None if only raw outputs could be compared.
        chains: the suppression chains; None if the reference's NMS inputs are unknown.
        reach: the number of NMS inputs; None if the reference has no more than the candidate.
        computed_by: the runtime that ran the candidate, its version and kernels, if known.
        not_run: why the candidate was not run by its own runtime; empty if it was.
    """

    precision: str
    images: int
    batch_sizes: tuple[int, ...]
    outputs: tuple[OutputParity, ...] = ()
    detections: DetectionParity | None = None
    chains: ChainParity | None = None
    reach: ReachParity | None = None
    computed_by: str = ""
    not_run: str = ""

    @property
    def status(self) -> Status:
        """``failed`` if any part failed; ``inconclusive`` if nothing was proven."""
        parts = [output.status for output in self.outputs]
        if self.detections is not None:
            parts.append(self.detections.status)
        if "failed" in parts:
            return "failed"
        return "inconclusive" if "inconclusive" in parts or not parts else "passed"

    @property
    def passed(self) -> bool:
        """Whether everything that was compared agrees."""
        return self.status == "passed"

    @property
    def inconclusive(self) -> bool:
        """Whether nothing differs, but detections prove nothing."""
        return self.status == "inconclusive"

    @property
    def heads_match(self) -> bool:
        """Whether raw outputs were judged and all of them are within their tolerance."""
        judged = any(output.is_judged for output in self.outputs)
        return judged and all(output.matches for output in self.outputs)

    @property
    def deliverable(self) -> bool:
        """Whether an export delivers its artifact: passed, or inconclusive with matching heads."""
        return self.passed or (self.inconclusive and self.heads_match)

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON, in which values that are not finite are None."""
        document: dict[str, Any] = {
            "status": self.status,
            "precision": self.precision,
            "images": self.images,
            "batch_sizes": list(self.batch_sizes),
            "outputs": [output.to_dict() for output in self.outputs],
            "detections": self.detections.to_dict() if self.detections else None,
            "chains": dataclasses.asdict(self.chains) if self.chains else None,
            "candidates": dataclasses.asdict(self.reach) if self.reach else None,
            "computed_by": self.computed_by,
            "not_run": self.not_run,
        }
        cleaned: dict[str, Any] = without_non_finite(document)
        return cleaned


def without_non_finite(value: Any) -> Any:
    """Return a copy of a document in which numbers that are not finite are None."""
    if isinstance(value, dict):
        return {key: without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_non_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

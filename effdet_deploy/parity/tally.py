"""Detections of many images, gathered while they are run and judged at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.parity.matching import Matching, match_rows, strays
from effdet_deploy.parity.report import DetectionParity
from effdet_deploy.postprocess import sigmoid, top_candidates

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from effdet_deploy.parity.rows import Rows
    from effdet_deploy.parity.tolerances import Tolerance
    from effdet_deploy.spec import OutputSpec


@dataclass(frozen=True)
class _Compared:
    image: int
    reference: Rows
    candidate: Rows
    candidates: Rows | None
    matching: Matching


@dataclass
class DetectionTally:
    """Gathers the detections of both sides, image by image.

    Args:
        output: thresholds of the artifact.
        tolerance: what is asked of it.
    """

    output: OutputSpec
    tolerance: Tolerance
    broken: str = ""
    _compared: list[_Compared] = field(default_factory=list)
    _score_error: float = 0.0

    def add(
        self,
        image: int,
        reference: Rows,
        candidate: Rows,
        candidates: Rows | None = None,
        score_error: float = 0.0,
    ) -> None:
        """Take one image.

        Args:
            image: its index.
            reference: detections of the reference.
            candidate: detections of the candidate.
            candidates: what entered the reference's NMS, best score first, where it is known.
            score_error: measured between the raw scores of both, where they are known.
        """
        matching = match_rows(reference, candidate, self.tolerance.iou)
        self._compared.append(_Compared(image, reference, candidate, candidates, matching))
        self._score_error = max(self._score_error, score_error, matching.score_difference)

    def finish(self, own_share: float | None = None) -> DetectionParity:
        """Judge everything that was taken; border cases by the score error of all images."""
        score_error = min(self._score_error, self.tolerance.score_error)
        matchings = [each.matching for each in self._compared]
        return DetectionParity(
            images=len(self._compared),
            reference_count=sum(len(each.reference) for each in self._compared),
            candidate_count=sum(len(each.candidate) for each in self._compared),
            matched=sum(len(each.pairs) for each in matchings),
            strays=tuple(
                stray
                for each in self._compared
                for stray in strays(
                    each.image,
                    each.reference,
                    each.candidate,
                    each.matching,
                    self.output,
                    score_error,
                    each.candidates,
                    self.tolerance.iou,
                )
            ),
            iou=self.tolerance.iou,
            required=self.tolerance.matched,
            box_difference=max((each.box_difference for each in matchings), default=0.0),
            score_difference=max((each.score_difference for each in matchings), default=0.0),
            score_error=score_error,
            non_finite=sum(
                each.reference.non_finite + each.candidate.non_finite for each in self._compared
            ),
            own_share=own_share,
            broken=self.broken,
        )


def measure_score_error(reference: NDArray[Any], candidate: NDArray[Any], count: int) -> float:
    """Return the largest difference of scores among the ``count`` best pairs of either side.

    Args:
        reference: class logits ``[A,C]``.
        candidate: class logits ``[A,C]``.
        count: how many pairs enter NMS (K).
    """
    one, other = (np.asarray(each, dtype=np.float32) for each in (reference, candidate))
    largest = 0.0
    for source in (one, other):
        chosen = top_candidates(source, count)
        difference = np.abs(sigmoid(one[chosen]) - sigmoid(other[chosen]))
        largest = max(largest, float(np.nanmax(difference, initial=0.0)))
    return largest

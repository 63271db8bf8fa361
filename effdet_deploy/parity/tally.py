"""Detections of many images, gathered while they are run and judged at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.detection.postprocess import sigmoid, top_candidates
from effdet_deploy.parity.matching import ImagePair, Matching, match_rows, strays
from effdet_deploy.parity.report import DetectionParity

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import OutputSpec
    from effdet_deploy.parity.tolerances import Tolerance


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
    _pairs: list[tuple[ImagePair, Matching]] = field(default_factory=list)
    _score_error: float = 0.0
    _non_finite: int = 0

    def add(self, pair: ImagePair, score_error: float = 0.0) -> Matching:
        """Take one image and return its pairs.

        ``score_error`` is measured between raw scores, where they are known.
        """
        matching = match_rows(pair.reference, pair.candidate, self.tolerance.iou)
        self._pairs.append((pair, matching))
        self._score_error = max(self._score_error, score_error, matching.score_difference)
        return matching

    def add_heads(self, *heads: NDArray[Any]) -> None:
        """Count what is not finite in raw heads, from which it may not reach the detections."""
        self._non_finite += sum(int(np.count_nonzero(~np.isfinite(each))) for each in heads)

    def finish(self, own_share: float | None = None) -> DetectionParity:
        """Judge everything that was taken; border cases by the score error of all images.

        ``own_share`` is the share of its own detections that the reference's float64 run confirms.
        """
        score_error = min(self._score_error, self.tolerance.score_error)
        pairs = [pair for pair, _ in self._pairs]
        matchings = [matching for _, matching in self._pairs]
        return DetectionParity(
            images=len(pairs),
            reference_count=sum(len(pair.reference) for pair in pairs),
            candidate_count=sum(len(pair.candidate) for pair in pairs),
            matched=sum(len(matching.pairs) for matching in matchings),
            strays=tuple(
                stray
                for pair, matching in self._pairs
                for stray in strays(pair, matching, self.output, score_error, self.tolerance.iou)
            ),
            iou=self.tolerance.iou,
            required=self.tolerance.matched,
            box_difference=max((each.box_difference for each in matchings), default=0.0),
            score_difference=max((each.score_difference for each in matchings), default=0.0),
            score_error=score_error,
            non_finite=self._non_finite
            + sum(pair.reference.non_finite + pair.candidate.non_finite for pair in pairs),
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

"""How much faster one thing is than another, from runs that took turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.benchmark.measure import MIN_PAIRS, median_interval
from effdet_deploy.errors import UsageError

if TYPE_CHECKING:
    from effdet_deploy.benchmark.measure import Timing


@dataclass(frozen=True)
class Ratio:
    """How many times the candidate is as fast as the other: above 1, the candidate wins.

    ``median`` is over ``pairs`` of runs that stood next to each other; ``low`` and ``high`` bound
    it with 95% confidence (:func:`effdet_deploy.benchmark.measure.median_interval`).
    """

    median: float
    low: float
    high: float
    pairs: int

    @property
    def verdict(self) -> str:
        """``faster`` or ``slower`` where the interval excludes 1, else ``no difference shown``."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no difference shown"

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f}-{self.high:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """Return the ratio for JSON."""
        return {
            "median": self.median,
            "interval": [self.low, self.high],
            "pairs": self.pairs,
            "verdict": self.verdict,
        }


def compare(candidate: Timing, other: Timing) -> Ratio:
    """Return how many times ``candidate`` is as fast as ``other``, measured in turns with it.

    Raises:
        UsageError: fewer than seven pairs: no interval could exclude chance.
    """
    pairs = min(len(candidate.seconds), len(other.seconds))
    if pairs < MIN_PAIRS or len(candidate.seconds) != len(other.seconds):
        raise UsageError(
            f"A ratio needs {MIN_PAIRS} interleaved pairs of runs or more, not "
            f"{len(candidate.seconds)} and {len(other.seconds)} runs.",
            f"Ask for at least {MIN_PAIRS} runs.",
        )
    ratios = tuple(
        theirs / ours for ours, theirs in zip(candidate.seconds, other.seconds, strict=True)
    )
    low, high = median_interval(ratios)
    return Ratio(float(np.median(ratios)), low, high, pairs)

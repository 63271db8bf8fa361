"""Other ways to clip activations, for a comparison with the way that exports use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.onnxgraph.running import Range
from effdet_deploy.precision.int8.calibration import LEVELS
from effdet_deploy.precision.int8.quantizer import Quantizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from effdet_deploy.precision.int8.calibration import Histogram

    Floats = NDArray[np.float64]
    Method = Callable[[Histogram, bool], Range]

PERCENTILE = 99.99
_SHARES = np.linspace(1.0, 0.125, 57)
"""The shares of the full range that clipping by entropy tries. With a share below an eighth, a
level would be a single bin of the histogram, and rounding would seem to change nothing."""


class OtherwiseClipped(Quantizer):
    """A quantizer that clips by another method than exports do.

    Args:
        method: one of :data:`METHODS`; None clips as exports do.
        arguments: the arguments of :class:`Quantizer`.
    """

    def __init__(self, method: Method | None, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._method = method

    def range_of(self, value: str) -> Range:
        """Return the range that the quantizer of a value covers."""
        if self._method is None:
            return super().range_of(value)
        return self._method(self.histograms[value], self.layout.symmetric)


def min_max(histogram: Histogram, symmetric: bool) -> Range:
    """Clip nothing."""
    full = _full(histogram)
    return _mirrored(full) if symmetric else full


def percentile(histogram: Histogram, symmetric: bool) -> Range:
    """Keep :data:`PERCENTILE` percent of the values; if symmetric, of their magnitudes."""
    values, counts = histogram.centers, histogram.counts
    if symmetric:
        return _mirrored(Range(0.0, _quantile(np.abs(values), counts)))
    full = _full(histogram)
    return Range(
        max(full.low, min(0.0, -_quantile(-values, counts))),
        min(full.high, max(0.0, _quantile(values, counts))),
    )


def entropy(histogram: Histogram, symmetric: bool) -> Range:
    """Clip where rounding to levels changes the distribution least (Kullback-Leibler divergence).

    If several ranges are equally good, the widest is taken. Source: Migacz 2017, "8-bit Inference
    with TensorRT".
    """
    full, counts = _full(histogram), histogram.counts.astype(np.float64)
    # Zero lies in every range that is tried, and padding makes it frequent. It would outweigh all
    # other values, so its bin is cut to the height of the neighboring bins.
    zero = int(np.argmin(np.abs(histogram.centers)))
    around = [counts[each] for each in (zero - 1, zero + 1) if 0 <= each < len(counts)]
    counts[zero] = min(counts[zero], max(around))
    tops = [float(share) * full.magnitude for share in _SHARES]
    tried = [
        Range(-top, top) if symmetric else Range(max(full.low, -top), min(full.high, top))
        for top in tops
    ]
    return min(tried, key=lambda each: _divergence(histogram.centers, counts, each))


METHODS: dict[str, Method] = {"min-max": min_max, "percentile": percentile, "entropy": entropy}


def _full(histogram: Histogram) -> Range:
    return Range(min(histogram.low, 0.0), max(histogram.high, 0.0))


def _mirrored(seen: Range) -> Range:
    return Range(-seen.magnitude, seen.magnitude)


def _quantile(values: Floats, counts: NDArray[np.int64]) -> float:
    order = np.argsort(values)
    below = np.cumsum(counts[order])
    position = int(np.searchsorted(below, PERCENTILE / 100 * below[-1]))
    return float(values[order][min(position, len(values) - 1)])


def _divergence(centers: Floats, counts: Floats, chosen: Range) -> float:
    """Return KL(p, q) of the histogram before and after clipping and rounding.

    p is the histogram with the clipped tails in the outermost bins. q has each level's mass spread
    evenly over the level's bins. Empty bins are left out, so p and q are zero in the same bins.
    """
    inside = np.flatnonzero((centers >= chosen.low) & (centers <= chosen.high) & (counts > 0))
    if not inside.size:
        return float("inf")
    held = counts[inside]
    levels = np.rint(centers[inside] * LEVELS / (chosen.high - chosen.low)).astype(np.int64)
    levels -= levels[0]
    members = np.maximum(np.bincount(levels), 1)
    spread = (np.bincount(levels, held) / members)[levels]
    clipped = held.copy()
    clipped[0] += counts[: inside[0]].sum()
    clipped[-1] += counts[inside[-1] + 1 :].sum()
    p, q = clipped / clipped.sum(), spread / spread.sum()
    return float((p * np.log(p / q)).sum())

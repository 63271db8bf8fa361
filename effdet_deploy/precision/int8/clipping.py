"""From a histogram to the range that INT8 covers: min-max, percentile, entropy or least error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from effdet_deploy.precision.ranges import Range

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from effdet_deploy.precision.int8.calibration import Histogram

    Floats = NDArray[np.float64]

RangeMethod = Literal["min-max", "percentile", "entropy", "mse"]

LEVELS = 255
PERCENTILE = 99.99
_SHARES = np.linspace(1.0, 0.2, 41)
"""Of the full range, what clipping by error tries."""
_ENTROPY_SHARES = np.linspace(1.0, 0.125, 57)
"""What clipping by entropy tries: below an eighth, a level is a single bin of the histogram, and
rounding seems to change nothing."""


def choose_range(histogram: Histogram, method: RangeMethod, *, symmetric: bool) -> Range:
    """Return the range that INT8 should cover; it holds zero.

    Args:
        histogram: of the tensor.
        method: how much of the tails is clipped away.
        symmetric: whether the range must be as wide below zero as above.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if not low < high:
        return Range(-1.0 if symmetric else 0.0, 1.0)
    chosen = _METHODS[method](histogram, Range(low, high), symmetric)
    return _mirrored(chosen) if symmetric else chosen


def _mirrored(seen: Range) -> Range:
    return Range(-seen.magnitude, seen.magnitude)


def _min_max(_histogram: Histogram, full: Range, _symmetric: bool) -> Range:
    return full


def _percentile(histogram: Histogram, full: Range, symmetric: bool) -> Range:
    if symmetric:
        return _mirrored(Range(0.0, _quantile(np.abs(histogram.centres), histogram.counts)))
    return Range(
        max(full.low, min(0.0, -_quantile(-histogram.centres, histogram.counts))),
        min(full.high, max(0.0, _quantile(histogram.centres, histogram.counts))),
    )


def _quantile(values: Floats, counts: NDArray[np.int64]) -> float:
    order = np.argsort(values)
    below = np.cumsum(counts[order])
    position = int(np.searchsorted(below, PERCENTILE / 100 * below[-1]))
    return float(values[order][min(position, len(values) - 1)])


def _least_error(histogram: Histogram, full: Range, symmetric: bool) -> Range:
    """Clip where the mean squared error of rounding and clipping together is least."""

    def error(low: float, high: float) -> float:
        return _squared_error(histogram, low, high)

    if symmetric:
        top = full.magnitude
        best = min(_SHARES, key=lambda share: error(-share * top, share * top))
        return Range(-best * top, best * top)
    # The two ends are nearly independent: each is searched with the other where it stands.
    upper = min(_SHARES, key=lambda share: error(full.low, share * full.high)) * full.high
    lower = min(_SHARES, key=lambda share: error(share * full.low, upper)) * full.low
    return Range(float(lower), float(upper))


def _squared_error(histogram: Histogram, low: float, high: float) -> float:
    scale = (high - low) / LEVELS or 1.0
    values = histogram.centres
    inside = np.clip(values, low, high)
    # A value inside a step is anywhere in it: the variance of a uniform distribution.
    rounding = np.where(values == inside, scale**2 / 12, 0.0)
    return float((histogram.counts * ((values - inside) ** 2 + rounding)).sum())


def _entropy(histogram: Histogram, full: Range, symmetric: bool) -> Range:
    """Clip where rounding to levels changes the distribution least, by Kullback and Leibler.

    Source: Migacz 2017, "8-bit Inference with TensorRT"; the widest of equals.
    """
    counts = _without_zeros(histogram)
    candidates = [_clipped(full, float(share), symmetric) for share in _ENTROPY_SHARES]
    return min(candidates, key=lambda each: _divergence(histogram.centres, counts, each))


def _clipped(full: Range, share: float, symmetric: bool) -> Range:
    top = share * full.magnitude
    return Range(-top, top) if symmetric else Range(max(full.low, -top), min(full.high, top))


def _without_zeros(histogram: Histogram) -> Floats:
    """Return the counts with zero's bin no higher than its neighbours.

    Exact zeros, from padding and gates, are held by any range and would outweigh everything else.
    """
    counts = histogram.counts.astype(np.float64)
    zero = int(np.argmin(np.abs(histogram.centres)))
    around = [counts[each] for each in (zero - 1, zero + 1) if 0 <= each < len(counts)]
    counts[zero] = min(counts[zero], max(around))
    return counts


def _divergence(centres: Floats, counts: Floats, chosen: Range) -> float:
    """Return KL(p, q): p with the tails in the outermost bins, q each level's mass spread evenly.

    Only bins that hold something take part, so that neither side is zero where the other is not.
    """
    inside = np.flatnonzero((centres >= chosen.low) & (centres <= chosen.high) & (counts > 0))
    if not inside.size:
        return float("inf")
    held = counts[inside]
    levels = np.rint(centres[inside] * LEVELS / (chosen.high - chosen.low)).astype(np.int64)
    levels -= levels[0]
    members = np.maximum(np.bincount(levels), 1)
    spread = (np.bincount(levels, held) / members)[levels]
    clipped = held.copy()
    clipped[0] += counts[: inside[0]].sum()
    clipped[-1] += counts[inside[-1] + 1 :].sum()
    p, q = clipped / clipped.sum(), spread / spread.sum()
    return float((p * np.log(p / q)).sum())


_METHODS: dict[str, Callable[[Histogram, Range, bool], Range]] = {
    "min-max": _min_max,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _least_error,
}
RANGE_METHODS = tuple(_METHODS)

"""From a histogram to the range that INT8 covers: min-max, percentile, entropy or least error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from effdet_deploy.precision.ranges import Range

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from effdet_deploy.precision.calibration import Histogram

    Floats = NDArray[np.float64]

RangeMethod = Literal["min-max", "percentile", "entropy", "mse"]

LEVELS = 255
PERCENTILE = 99.99
_SHARES = np.linspace(1.0, 0.2, 41)
"""Of the full range, what clipping by error and by entropy tries."""
_ENTROPY_LEVELS = 128


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
    """Clip where the quantised distribution diverges least (Migacz 2017, TensorRT's calibrator)."""
    share = min(_SHARES, key=lambda share: _divergence(histogram, float(share) * full.magnitude))
    top = float(share) * full.magnitude
    return Range(-top if symmetric else max(full.low, -top), min(full.high, top))


def _divergence(histogram: Histogram, top: float) -> float:
    magnitudes = np.abs(histogram.centres)
    bins = len(histogram.counts)
    index = np.minimum((magnitudes / top * bins).astype(int), bins - 1)
    # Exact zeros, which clipping cannot hurt, would outweigh everything else.
    counts = np.where(magnitudes > 0, histogram.counts, 0)
    clipped = np.bincount(index, counts, bins).astype(float)
    inside = np.bincount(index, np.where(magnitudes <= top, counts, 0), bins).astype(float)
    groups = np.arange(bins) * _ENTROPY_LEVELS // bins
    filled = inside > 0
    members = np.bincount(groups, filled, _ENTROPY_LEVELS)
    mass = np.bincount(groups, inside, _ENTROPY_LEVELS)
    spread = np.where(filled, (mass / np.maximum(members, 1))[groups], 0.0)
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1.0)
    valid = p > 0
    return float((p[valid] * np.log(p[valid] / np.maximum(q[valid], 1e-12))).sum())


_METHODS: dict[str, Callable[[Histogram, Range, bool], Range]] = {
    "min-max": _min_max,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _least_error,
}
RANGE_METHODS = tuple(_METHODS)

"""From a histogram to the range that INT8 covers: where rounding and clipping err least together.

Min-max, percentile and entropy (Migacz 2017) were measured beside it: docs/precision.md has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.onnxgraph.running import Range

if TYPE_CHECKING:
    from effdet_deploy.precision.int8.calibration import Histogram

LEVELS = 255
_SHARES = np.linspace(1.0, 0.2, 41)
"""Of the full range, what is tried."""


def choose_range(histogram: Histogram, *, symmetric: bool) -> Range:
    """Return the range that INT8 should cover, by least mean squared error; it holds zero.

    Args:
        histogram: of the tensor.
        symmetric: whether the range must be as wide below zero as above.
    """
    bottom, top = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if not bottom < top:
        return Range(-1.0 if symmetric else 0.0, 1.0)
    values = histogram.centres

    def error(low: float, high: float) -> float:
        scale = (high - low) / LEVELS or 1.0
        inside = np.clip(values, low, high)
        # A value inside a step is anywhere in it: the variance of a uniform distribution.
        rounding = np.where(values == inside, scale**2 / 12, 0.0)
        return float((histogram.counts * ((values - inside) ** 2 + rounding)).sum())

    if symmetric:
        largest = max(-bottom, top)
        best = float(min(_SHARES, key=lambda share: error(-share * largest, share * largest)))
        return Range(-best * largest, best * largest)
    # The two ends are nearly independent: each is searched with the other where it stands.
    upper = min(_SHARES, key=lambda share: error(bottom, share * top)) * top
    lower = min(_SHARES, key=lambda share: error(share * bottom, upper)) * bottom
    return Range(float(lower), float(upper))

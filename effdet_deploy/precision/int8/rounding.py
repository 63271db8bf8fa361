"""Weights to INT8: scales with least error; weights rounded later cancel earlier errors."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

LARGEST_INT8 = 127
"""The largest absolute value of an int8 weight."""
LARGEST_PORTABLE = 64
"""With weights up to this value, the sum of two products of a uint8 and a weight stays within 16
bits: 2 x 255 x 64 = 32,640 < 2**15.

x86 processors without VNNI add products in pairs and saturate there. A bound on every weight holds
for any pairing; keeping eight bits where the pairs of today's kernels allow it gave only 0.1 to
0.3 dB more signal in the heads (docs/precision.md).
"""
SMALLEST_SCALE = 2.0**-20
"""Smaller scales would not be valid in float16."""
_SHARES = np.linspace(1.0, 0.7, 16)
"""The shares of the scale for an output channel's full range that are tried."""
_DAMPING = 0.01
"""What is added to the diagonal of second moments, as a share of its mean, to invert them."""
_BLOCK = 32
"""How many columns of a weight are rounded before the columns after them get their errors."""
_SAMPLES = 512
"""Positions of a picture that are sampled for the second moments."""


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """int8 ``values`` ``[out, in/groups, kh, kw]`` and float32 ``scale`` ``[out]``."""

    values: NDArray[np.int8]
    scale: Floats

    @property
    def restored(self) -> Floats:
        """The weights as the runtime computes with them."""
        restored: Floats = self.values * self.scale.reshape(-1, 1, 1, 1)
        return restored


def quantize_weight(
    weight: Floats,
    moments: NDArray[np.float64] | None = None,
    *,
    half_scale: bool = False,
    largest: int = LARGEST_INT8,
) -> QuantizedWeight:
    """Quantize a weight ``[out, in/groups, kh, kw]`` per output channel, by least squared error.

    Args:
        weight: float32.
        moments: second moments ``[in,in]`` of the input of a pointwise convolution; with them,
            weights that are rounded later cancel the errors of earlier ones.
        half_scale: round scales to float16 first, as an FP16 graph does.
        largest: the largest allowed absolute value of a weight.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    full = np.maximum(np.abs(rows).max(axis=1) / largest, SMALLEST_SCALE)
    tried = [share * full for share in _SHARES]
    errors = [
        ((_round(rows, each[:, None], largest) * each[:, None] - rows) ** 2).sum(axis=1)
        for each in tried
    ]
    scale = np.maximum(full * _SHARES[np.argmin(errors, axis=0)], SMALLEST_SCALE)
    if half_scale:
        scale = scale.astype(np.float16).astype(np.float64)
    nearest = _round(rows, scale[:, None], largest)
    if moments is not None:
        compensated = _compensated(rows, scale, moments, largest)
        if _error(rows, compensated, scale, moments) < _error(rows, nearest, scale, moments):
            nearest = compensated
    return QuantizedWeight(nearest.astype(np.int8).reshape(weight.shape), scale.astype(np.float32))


def _round(
    rows: NDArray[np.float64], scale: NDArray[np.float64], largest: int
) -> NDArray[np.float64]:
    rounded: NDArray[np.float64] = np.clip(np.rint(rows / scale), -largest, largest)
    return rounded


def _compensated(
    rows: NDArray[np.float64],
    scale: NDArray[np.float64],
    moments: NDArray[np.float64],
    largest: int,
) -> NDArray[np.float64]:
    """Round column by column, and spread every error over the columns that follow.

    Columns of a later block get the errors of a whole block at once, which is a matrix product.
    Source: GPTQ (Frantar et al. 2022, section 3), from Optimal Brain Surgeon.
    """
    # One row for each column of the weight, so that a block is contiguous.
    left = np.ascontiguousarray(rows.T)
    damped = moments + _DAMPING * max(float(np.trace(moments)) / len(moments), 1e-12) * np.eye(
        len(moments)
    )
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    rounded = np.empty_like(left)
    errors = np.empty_like(left)
    for begin in range(0, len(left), _BLOCK):
        end = min(begin + _BLOCK, len(left))
        for column in range(begin, end):
            rounded[column] = _round(left[column], scale, largest)
            errors[column] = (left[column] - rounded[column] * scale) / upper[column, column]
            left[column + 1 : end] -= np.outer(upper[column, column + 1 : end], errors[column])
        left[end:] -= upper[begin:end, end:].T @ errors[begin:end]
    return np.ascontiguousarray(rounded.T)


def _error(
    rows: NDArray[np.float64],
    rounded: NDArray[np.float64],
    scale: NDArray[np.float64],
    moments: NDArray[np.float64],
) -> float:
    """Return the squared error of the convolution's output."""
    lost = rows - rounded * scale[:, None]
    return float(((lost @ moments) * lost).sum())


def input_snr_db(weight: Floats, moments: NDArray[np.float64], step: float) -> float:
    """Return a pointwise layer's signal-to-noise ratio, in dB, after its input is rounded.

    Rounding errors are taken as uniform and independent, with variance step² / 12.

    Args:
        weight: ``[out, in, 1, 1]``.
        moments: second moments ``[in,in]`` of the input.
        step: the size of one level of the input's quantizer.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    signal = float(((rows @ moments) * rows).sum())
    noise = step**2 / 12 * float((rows**2).sum())
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def second_moments(runs: Iterable[dict[str, Floats]]) -> dict[str, NDArray[np.float64]]:
    """Return the mean of x·xᵀ ``[C,C]`` over sampled positions x of maps ``[N,C,H,W]``.

    Tables ``[rows, C]`` are sampled too. The positions depend only on the map's name, so that the
    rounding of a layer does not depend on which other layers are rounded with it.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    for run in runs:
        for name, maps in run.items():
            columns = np.moveaxis(maps, 1, 0).reshape(maps.shape[1], -1)
            if columns.shape[1] > _SAMPLES:
                random = np.random.default_rng([zlib.crc32(name.encode()), counts.get(name, 0)])
                columns = columns[:, random.integers(columns.shape[1], size=_SAMPLES)]
            sums[name] = sums.get(name, 0.0) + (columns @ columns.T).astype(np.float64)
            counts[name] = counts.get(name, 0) + columns.shape[1]
    return {name: total / counts[name] for name, total in sums.items()}

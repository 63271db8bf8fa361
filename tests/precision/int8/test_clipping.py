from __future__ import annotations

import numpy as np
import pytest

from effdet_deploy.onnxgraph.running import Range
from effdet_deploy.precision.int8.calibration import BINS, LEVELS, Histogram, choose_range


def histogram(values) -> Histogram:
    low, high = float(values.min()), float(values.max())
    return Histogram(low, high, np.histogram(values, BINS, (low, high))[0])


def quantization_error(values, chosen) -> float:
    scale = (chosen.high - chosen.low) / LEVELS
    restored = np.rint(np.clip(values, chosen.low, chosen.high) / scale) * scale
    return float(((values - restored) ** 2).mean())


@pytest.fixture(scope="module")
def tailed():
    """Values that are mostly near zero, with a few outliers near 30."""
    random = np.random.default_rng(0)
    return np.concatenate([random.normal(0, 1, 200_000), random.uniform(25, 30, 10)])


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_range_holds_zero_and_never_leaves_the_data(tailed, symmetric):
    chosen = choose_range(histogram(tailed), symmetric=symmetric)
    assert chosen.low <= 0 <= chosen.high <= tailed.max()
    assert (chosen.low == -chosen.high) or not symmetric


@pytest.mark.parametrize("symmetric", [True, False])
def test_clipping_loses_less_than_the_full_range(tailed, symmetric):
    chosen = choose_range(histogram(tailed), symmetric=symmetric)
    assert chosen.high < tailed.max()
    low = -tailed.max() if symmetric else tailed.min()
    whole = quantization_error(tailed, Range(float(low), float(tailed.max())))
    assert quantization_error(tailed, chosen) < whole


def test_a_tensor_of_zeros_gets_a_range_that_is_not_empty():
    nothing = Histogram(0.0, 0.0, np.eye(1, BINS, dtype=np.int64)[0])
    chosen = choose_range(nothing, symmetric=False)
    assert chosen.high > chosen.low


def test_the_small_negative_side_of_an_activation_does_not_get_half_the_levels():
    random = np.random.default_rng(1)
    x = random.normal(0, 2, 100_000)
    silu = x / (1 + np.exp(-x))
    chosen = choose_range(histogram(silu), symmetric=False)
    assert -0.3 < chosen.low < 0
    assert chosen.high > 5

"""How one tensor differs from another: scaled, clipped, reordered or not finite."""

from __future__ import annotations

import numpy as np
import pytest

from effdet_deploy.diagnosis.symptoms import describe_difference

# The difference that float32 rounding makes between two runtimes, relative to the signal.
ROUNDING = 1e-6


@pytest.fixture
def maps():
    return np.random.default_rng(0).normal(0, 1, (2, 6, 8, 9))


def rounded(tensor):
    noise = np.random.default_rng(1).normal(0, ROUNDING, tensor.shape)
    return (tensor + noise).astype(np.float32)


def test_a_scale_is_named(maps):
    assert describe_difference(maps, rounded(1.25 * maps)) == "is the reference's times 1.25"


def test_a_clipped_range_is_named_with_the_limit_above_or_below(maps):
    above = describe_difference(maps, np.minimum(maps, 0.5))
    assert above == "is the reference's clipped at 0.5 from above"
    both = describe_difference(maps, np.clip(maps, -0.25, 0.5))
    assert both == "is the reference's clipped at -0.25 from below and 0.5 from above"


def test_channels_in_another_order_are_named(maps):
    said = describe_difference(maps, rounded(maps[:, [0, 2, 1, 3, 4, 5]]))
    listed = "1 holds the reference's 2, 2 holds the reference's 1"
    assert said == f"has 2 of 6 channels in another order ({listed})"


def test_channels_scaled_and_shifted_by_their_own_amounts_are_named(maps):
    other = maps.copy()
    other[:, 4] = 3 * other[:, 4] - 1
    said = describe_difference(maps, rounded(other))
    assert said.startswith("has 1 of 6 channels scaled and shifted by their own amounts (4)")


def test_noise_is_not_described(maps):
    noisy = maps + np.random.default_rng(2).normal(0, 0.3, maps.shape)
    assert describe_difference(maps, noisy) == ""


def test_shapes_and_numbers_that_are_not_finite_are_named(maps):
    assert "has the shape [2, 5, 8, 9]" in describe_difference(maps, maps[:, :5])
    broken = maps.copy()
    broken[0, 0, 0, :3] = np.nan
    assert describe_difference(maps, broken) == "holds 3 values that are NaN or infinite"
    assert "is finite where the reference" in describe_difference(broken, maps)


def test_a_single_list_of_numbers_is_described_without_channels():
    values = np.linspace(1, 2, 50)
    assert describe_difference(values, values + np.sin(40 * values)) == ""
    assert describe_difference(values, 2 * values) == "is the reference's times 2"

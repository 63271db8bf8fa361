from __future__ import annotations

import numpy as np
import pytest

from effdet_deploy.precision.int8.correction import mean_output
from effdet_deploy.precision.int8.rounding import (
    _BLOCK,
    LARGEST_INT8,
    quantize_weight,
    second_moments,
)


@pytest.fixture(scope="module")
def pointwise():
    """A pointwise weight, and inputs ``[in, n]`` whose channels depend on each other."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(32, 6)) @ random.normal(size=(6, 32)) + 0.1 * np.eye(32)
    inputs = mixing @ random.normal(size=(32, 4000)) + 0.5
    return random.normal(size=(16, 32, 1, 1)).astype(np.float32), inputs


def output_error(weight, quantized, inputs) -> float:
    lost = (weight - quantized.restored).reshape(len(weight), -1)
    return float(((lost @ inputs) ** 2).mean())


def test_weights_are_within_half_a_step_or_clipped(pointwise):
    weight, _ = pointwise
    found = quantize_weight(weight)
    steps = np.abs(weight - found.restored) / found.scale.reshape(-1, 1, 1, 1)
    assert np.abs(found.values).max() <= LARGEST_INT8
    assert (steps[np.abs(found.values) < LARGEST_INT8] <= 0.5 + 1e-4).all()


def test_every_output_channel_has_a_scale_of_its_own():
    weight = np.stack([np.full((2, 3, 3), 1e-3), np.full((2, 3, 3), 10.0)]).astype(np.float32)
    np.testing.assert_allclose(quantize_weight(weight).restored, weight, rtol=0.01)


def test_compensated_rounding_halves_the_error_of_the_output_at_least(pointwise):
    weight, inputs = pointwise
    moments = inputs @ inputs.T / inputs.shape[1]
    nearest = output_error(weight, quantize_weight(weight), inputs)
    assert output_error(weight, quantize_weight(weight, moments), inputs) < nearest / 2


def test_compensated_rounding_solves_for_the_columns_that_are_not_rounded_yet():
    columns = 2 * _BLOCK + 5
    random = np.random.default_rng(4)
    weight = random.normal(size=(6, columns, 1, 1)).astype(np.float32)
    inputs = random.normal(size=(columns, columns)) @ random.normal(size=(columns, 1000))
    moments = inputs @ inputs.T / 1000
    found = quantize_weight(weight, moments)
    rows, scale = weight[..., 0, 0].astype(np.float64), found.scale.astype(np.float64)[:, None]
    damped = moments + 0.01 * np.trace(moments) / columns * np.eye(columns)
    wanted = rows.copy()
    for column in range(columns):
        # The least squared error of the output, if the columns before this one stay as they are.
        lost = wanted[:, :column] - rows[:, :column]
        change = np.linalg.solve(damped[column:, column:], damped[column:, :column] @ lost.T)[:1]
        steps = np.rint((rows[:, [column]] - change.T) / scale)
        wanted[:, [column]] = np.clip(steps, -LARGEST_INT8, LARGEST_INT8) * scale
    np.testing.assert_array_equal(found.values[..., 0, 0], np.rint(wanted / scale))


def test_compensation_never_makes_the_output_worse():
    weight = np.random.default_rng(2).normal(size=(4, 8, 1, 1)).astype(np.float32)
    inputs = np.random.default_rng(3).normal(size=(8, 500))
    moments = inputs @ inputs.T / 500
    nearest = output_error(weight, quantize_weight(weight), inputs)
    assert output_error(weight, quantize_weight(weight, moments), inputs) <= nearest * (1 + 1e-9)


def test_channels_that_are_always_zero_do_not_break_compensation():
    weight = np.ones((2, 3, 1, 1), np.float32)
    assert np.isfinite(quantize_weight(weight, np.zeros((3, 3))).restored).all()


def test_scales_survive_in_float16_and_weights_are_rounded_with_those(pointwise):
    weight, _ = pointwise
    found = quantize_weight(weight, half_scale=True)
    np.testing.assert_array_equal(found.scale, found.scale.astype(np.float16))
    steps = np.abs(weight - found.restored) / found.scale.reshape(-1, 1, 1, 1)
    assert (steps[np.abs(found.values) < LARGEST_INT8] <= 0.5 + 1e-4).all()


def test_a_weight_of_zeros_has_a_scale_above_zero():
    found = quantize_weight(np.zeros((2, 3, 1, 1), np.float32), half_scale=True)
    assert (found.scale > 0).all()
    assert not found.values.any()


def test_second_moments_are_means_over_positions_and_pictures():
    maps = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    found = second_moments([{"x": maps}, {"x": 2 * maps}])["x"]
    flat = maps.reshape(2, -1)
    np.testing.assert_allclose(found, 5 * (flat @ flat.T) / 24)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_mean_output_of_a_convolution_follows_from_channel_means(groups):
    random = np.random.default_rng(4)
    weight = random.normal(size=(8, 4 // groups, 1, 1)).astype(np.float32)
    inputs = random.normal(1, 1, (4, 100)).astype(np.float32)
    per_group = 8 // groups
    outputs = np.concatenate(
        [
            weight[g * per_group : (g + 1) * per_group, :, 0, 0]
            @ inputs[g * (4 // groups) : (g + 1) * (4 // groups)]
            for g in range(groups)
        ]
    )
    np.testing.assert_allclose(
        mean_output(weight, inputs.mean(axis=1)), outputs.mean(axis=1), atol=1e-5
    )


def test_a_layer_is_sampled_alike_whatever_else_is_sampled_with_it():
    random = np.random.default_rng(0)
    runs = [
        {name: random.normal(size=(1, 3, 40, 40)).astype(np.float32) for name in "ab"}
        for _ in range(3)
    ]
    alone = second_moments([{"b": run["b"]} for run in runs])
    np.testing.assert_array_equal(second_moments(runs)["b"], alone["b"])

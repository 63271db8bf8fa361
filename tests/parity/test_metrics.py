from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effdet_deploy.parity.metrics import TensorErrors, is_explained, tensor_errors

FLOATS = st.floats(-1e6, 1e6, width=32)
# How much sums in float64 differ if they are added in another order.
SUM_TOLERANCE = 1e-12


def arrays_of(values):
    return np.array(values, dtype=np.float32)


def test_equal_tensors_have_no_error():
    errors = tensor_errors(arrays_of([[1, -2], [3, 0]]), arrays_of([[1, -2], [3, 0]]))
    assert (errors.largest, errors.mean, errors.cosine, errors.snr_db) == (0, 0, 1, math.inf)
    assert errors.passing_tolerance == 0
    assert errors.within(0)


def test_errors_are_those_calculated_by_hand():
    errors = tensor_errors(arrays_of([3, 4]), arrays_of([3, 4.5]))
    assert errors.largest == 0.5
    assert errors.mean == 0.25
    assert errors.snr_db == pytest.approx(20)
    assert errors.cosine == pytest.approx((9 + 18) / (5 * math.hypot(3, 4.5)))


def test_opposite_tensors_have_cosine_minus_one():
    assert tensor_errors(arrays_of([1, 2]), arrays_of([-1, -2])).cosine == pytest.approx(-1)


def test_a_reference_of_zeros_has_no_signal():
    errors = tensor_errors(arrays_of([0, 0]), arrays_of([1, 0]))
    assert errors.snr_db == -math.inf
    assert errors.cosine == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sides", ["reference", "candidate", "both"])
def test_values_that_are_not_finite_on_one_side_or_both_never_pass(value, sides):
    reference, candidate = arrays_of([1, 2]), arrays_of([1, 2])
    if sides != "candidate":
        reference[0] = value
    if sides != "reference":
        candidate[0] = value
    errors = tensor_errors(reference, candidate)
    assert not errors.within(math.inf)
    assert errors.passing_tolerance == math.inf
    assert errors.non_finite_reference == int(sides != "candidate")
    assert errors.non_finite_candidate == int(sides != "reference")
    assert errors.count == 1


def test_shapes_that_differ_are_named_and_never_pass():
    errors = tensor_errors(np.zeros((2, 3)), np.zeros((3, 2)))
    assert "[2, 3]" in errors.mismatch
    assert "[3, 2]" in errors.mismatch
    assert not errors.within(math.inf)


def test_comparing_nothing_does_not_pass():
    assert not TensorErrors().within(math.inf)
    assert not tensor_errors(np.zeros((0, 4)), np.zeros((0, 4))).within(math.inf)


def test_a_mismatch_stays_when_errors_are_pooled():
    broken = tensor_errors(np.zeros(2), np.zeros(3)) + tensor_errors(np.zeros(2), np.zeros(2))
    assert not broken.within(1)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=2, max_size=20), st.integers(1, 19))
def test_pooled_errors_are_those_of_the_joined_tensors(pairs, split):
    one, other = arrays_of(pairs).T
    whole = tensor_errors(one, other)
    parts = tensor_errors(one[:split], other[:split]) + tensor_errors(one[split:], other[split:])
    assert parts.largest == whole.largest
    assert parts.count == whole.count
    assert parts.mean == pytest.approx(whole.mean, rel=SUM_TOLERANCE)
    assert parts.error_energy == pytest.approx(whole.error_energy, rel=SUM_TOLERANCE)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=20))
def test_the_passing_tolerance_passes_and_is_at_most_a_tenth_too_large(pairs):
    one, other = arrays_of(pairs).T
    errors = tensor_errors(one, other)
    assert errors.within(errors.passing_tolerance)
    assert errors.passing_tolerance <= errors.largest * (1.1 + 1e-9)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=20))
def test_errors_and_cosine_do_not_depend_on_which_side_is_the_reference(pairs):
    one, other = arrays_of(pairs).T
    forth, back = tensor_errors(one, other), tensor_errors(other, one)
    assert (forth.largest, forth.mean) == (back.largest, back.mean)
    assert forth.cosine == pytest.approx(back.cosine)


@pytest.mark.parametrize(
    "candidate", [arrays_of([1, 2, 3]), arrays_of([np.nan, np.nan]), arrays_of([1, np.inf])]
)
def test_tensors_that_cannot_be_compared_have_no_ratio(candidate):
    errors = tensor_errors(arrays_of([1, 2]), candidate)
    assert errors.snr_db == -math.inf
    assert math.isnan(errors.cosine)


@pytest.mark.parametrize(
    ("before", "after", "explained"),
    [
        (10.0, 30.0, True),
        (10.0, 29.0, False),
        (-math.inf, 5.0, True),
        (-math.inf, -math.inf, False),
        (math.inf, math.inf, False),
    ],
)
def test_a_change_explains_a_difference_if_only_a_hundredth_is_left(before, after, explained):
    assert is_explained(before, after) is explained

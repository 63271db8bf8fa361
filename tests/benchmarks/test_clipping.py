"""Clipping ranges chosen in ways that exports do not use, compared with the way that they use."""

from __future__ import annotations

import pytest

from effdet_deploy.precision.int8.calibration import choose_range
from tests.precision.int8.test_clipping import histogram, quantization_error, tailed  # noqa: F401


@pytest.fixture(scope="module")
def methods():
    from clipping import METHODS

    return METHODS


@pytest.mark.parametrize("method", ["min-max", "percentile", "entropy"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_range_holds_zero_and_never_leaves_the_data(methods, tailed, method, symmetric):  # noqa: F811
    chosen = methods[method](histogram(tailed), symmetric)
    assert chosen.low <= 0 <= chosen.high <= tailed.max()
    assert (chosen.low == -chosen.high) or not symmetric


def test_min_max_takes_everything(methods, tailed):  # noqa: F811
    chosen = methods["min-max"](histogram(tailed), False)
    assert (chosen.low, chosen.high) == (tailed.min(), tailed.max())


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_rare_outliers_are_clipped_away(methods, tailed, method):  # noqa: F811
    assert methods[method](histogram(tailed), True).high < 15


@pytest.mark.parametrize("symmetric", [True, False])
def test_no_other_method_errs_less_than_the_one_that_exports_use(methods, tailed, symmetric):  # noqa: F811
    seen = histogram(tailed)
    least = quantization_error(tailed, choose_range(seen, symmetric=symmetric))
    errors = {
        name: quantization_error(tailed, method(seen, symmetric))
        for name, method in methods.items()
    }
    assert least < errors["min-max"]
    # The search moves in steps of 2% of the range and knows values only by their bins.
    assert all(least < 1.05 * error for error in errors.values())

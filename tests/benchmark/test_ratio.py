from __future__ import annotations

import numpy as np
import pytest

from effdet_deploy.benchmark.measure import Timing
from effdet_deploy.benchmark.ratio import compare
from effdet_deploy.errors import UsageError

# Drifts of a busy machine, the same for both sides of a pair.
DRIFT = (1.0, 3.0, 0.5, 2.0, 1.5, 1.0, 4.0)


def test_drift_that_both_share_does_not_blur_the_ratio():
    ours = Timing(tuple(1.0 * drift for drift in DRIFT))
    theirs = Timing(tuple(2.0 * drift for drift in DRIFT))
    ratio = compare(ours, theirs)
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((2.0, 2.0, 2.0))
    assert ratio.verdict == "faster"
    assert compare(theirs, ours).verdict == "slower"


def test_chance_is_called_a_difference_no_more_often_than_stated():
    random = np.random.default_rng(3)
    trials = 400
    called = 0
    for _ in range(trials):
        ours, theirs = (Timing(tuple(random.normal(1, 0.1, 15))) for _ in range(2))
        called += compare(ours, theirs).verdict != "no difference shown"
    # Three standard deviations of a proportion of 0.05 among 400 trials are 0.033.
    assert called / trials < 0.083


@pytest.mark.parametrize(("ours", "theirs"), [(6, 6), (7, 8)])
def test_a_ratio_needs_seven_pairs(ours, theirs):
    with pytest.raises(UsageError, match="7 interleaved pairs"):
        compare(Timing((1.0,) * ours), Timing((1.0,) * theirs))

"""How runs are timed: warm-up, turns, and intervals that hold the median as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from effdet_deploy.benchmark.measure import (
    Schedule,
    Timing,
    compare,
    measure_interleaved,
    median_interval,
)
from effdet_deploy.errors import UsageError

# Factors by which a busy machine slows down seven pairs of runs: both runs of a pair by the same.
DRIFT = (1.0, 3.0, 0.5, 2.0, 1.5, 1.0, 4.0)


class FakeClock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds):
        """Return something to run that takes ``seconds``, a number or an iterator of numbers."""

        def run() -> None:
            self.now += seconds if isinstance(seconds, int | float) else next(seconds)

        return run


def measure(run, schedule, clock):
    """Time one run by itself."""
    return measure_interleaved({"": run}, schedule, clock=clock, pause=0.0)[""]


def falling_then_steady():
    """The times of a run that gets faster until it is done for the tenth time; then it is warm."""
    yield from (10.0 - index for index in range(9))
    while True:
        yield 1.0


@pytest.mark.parametrize("runs", [0, -1])
def test_zero_or_fewer_runs_are_refused(runs):
    with pytest.raises(UsageError, match="at least one run"):
        Schedule(min_runs=runs)


@pytest.mark.parametrize("wrong", [{"precision": 0.0}, {"max_seconds": 0.0}])
def test_a_schedule_that_cannot_end_is_refused(wrong):
    with pytest.raises(UsageError, match="above 0"):
        Schedule(**wrong)


def test_a_steady_run_ends_with_the_fewest_runs():
    clock = FakeClock()
    timing = measure(clock.takes(0.5), Schedule(min_runs=7), clock)
    assert timing.seconds == (0.5,) * 7
    assert timing.median == 0.5
    assert timing.variation == 0
    assert timing.warm


def test_an_unsteady_run_is_repeated_until_its_median_is_known():
    clock = FakeClock()
    noise = np.random.default_rng(1).uniform(0.9, 1.1, 10_000)
    schedule = Schedule(min_runs=7, max_runs=5000, precision=0.01, max_seconds=math.inf)
    timing = measure(clock.takes(iter(noise)), schedule, clock)
    assert timing.precision <= schedule.precision
    assert 50 < len(timing.seconds) < schedule.max_runs


def test_runs_end_when_the_time_is_up():
    clock = FakeClock()
    noise = np.random.default_rng(1).uniform(0.5, 1.5, 10_000)
    schedule = Schedule(min_runs=7, max_runs=5000, precision=1e-6, max_seconds=20)
    timing = measure(clock.takes(iter(noise)), schedule, clock)
    assert 15 < len(timing.seconds) < 30


def test_times_before_the_run_is_warm_do_not_count():
    clock = FakeClock()
    timing = measure(clock.takes(falling_then_steady()), Schedule(warm_up_seconds=100), clock)
    assert set(timing.seconds) == {1.0}
    assert timing.warm_up_runs > 9


def test_a_run_that_never_gets_warm_says_so():
    clock = FakeClock()
    growing = (1.2**index for index in range(1000))
    schedule = Schedule(min_runs=1, max_runs=1, warm_up_seconds=30)
    assert not measure(clock.takes(growing), schedule, clock).warm


def test_interleaved_runs_take_turns_and_the_first_place_rotates():
    clock = FakeClock()
    order = []

    def named(name):
        def run() -> None:
            order.append(name)
            clock.now += 1.0

        return run

    timings = measure_interleaved(
        {name: named(name) for name in "abc"},
        Schedule(min_runs=3, max_runs=3),
        clock=clock,
        pause=0,
    )
    # Each turn is one run to settle and one that counts.
    assert "".join(order[-18:]) == "aabbcc" + "bbccaa" + "ccaabb"
    assert {len(each.seconds) for each in timings.values()} == {3}


@pytest.mark.parametrize("count", range(6))
def test_fewer_than_six_values_have_no_interval(count):
    """Five values are too few: their extremes miss the median in 2 * (1/2)^5 = 6% of cases."""
    assert median_interval((1.0,) * count) == (-math.inf, math.inf)


def test_seven_values_are_bounded_by_their_extremes():
    # The median lies beyond the extremes in 2 * (1/2)^7 = 1.6% of cases. In 12.5% it
    # lies below the second or above the sixth value.
    assert median_interval((3.0, 1.0, 7.0, 2.0, 6.0, 4.0, 5.0)) == (1.0, 7.0)


def test_the_interval_holds_the_true_median_as_often_as_it_says():
    random = np.random.default_rng(0)
    held = 0
    trials = 2000
    for _ in range(trials):
        low, high = median_interval(tuple(random.exponential(size=25)))
        held += low <= math.log(2) <= high
    # Three standard deviations of a proportion of 0.95 among 2000 trials are 0.015.
    assert held / trials >= 0.935


def test_the_json_of_a_timing_is_in_milliseconds_and_holds_every_run():
    document = Timing((0.002, 0.001, 0.003), 4).to_dict()
    assert document["median_ms"] == pytest.approx(2.0)
    assert document["samples_ms"] == [2.0, 1.0, 3.0]
    assert document["median_interval_ms"] is None
    assert document["variation"] == pytest.approx(0.5)


def test_drift_that_both_share_does_not_blur_the_ratio():
    ours = Timing(tuple(1.0 * drift for drift in DRIFT))
    theirs = Timing(tuple(2.0 * drift for drift in DRIFT))
    ratio = compare(ours, theirs)
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((2.0, 2.0, 2.0))
    assert ratio.verdict == "faster"
    assert compare(theirs, ours).verdict == "slower"


def test_chance_is_called_a_difference_no_more_often_than_stated():
    """Two programs of equal speed may be called different in 5% of comparisons, not more."""
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

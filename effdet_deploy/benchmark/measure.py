"""Timing of several things in turns until their medians are precise, and ratios of their speed."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Run = Callable[[], Any]
    Clock = Callable[[], float]

CONFIDENCE = 0.95
MIN_PAIRS = 7
"""The least number of interleaved pairs of runs for which a ratio is given."""
WARM_UP_WINDOW = 3
WARM_UP_TOLERANCE = 0.05
"""Warm-up ends when the medians of two windows of runs differ by at most this share."""
PAUSE_S = 0.02
"""Pause between runs of different things, in seconds: worker threads spin for a while after a run
and would take a core from the next one."""


@dataclass(frozen=True)
class Schedule:
    """When a measurement ends.

    Attributes:
        min_runs: the least number of runs, whatever their spread.
        max_runs: the largest number of runs.
        precision: stop when the interval of the median is within this share of the median.
        max_seconds: begin no further run after this time, once there are ``min_runs``.
        warm_up_seconds: stop waiting for stable times after this.
        settling_runs: if several things take turns, how many runs of a thing are discarded in each
            of its turns before one counts: the other things have filled the caches, which does not
            happen to a model that runs alone.

    Raises:
        UsageError: there are no runs, or values are out of order.
    """

    min_runs: int = 15
    max_runs: int = 200
    precision: float = 0.02
    max_seconds: float = 30.0
    warm_up_seconds: float = 10.0
    settling_runs: int = 1

    def __post_init__(self) -> None:
        if self.min_runs < 1 or self.max_runs < self.min_runs:
            raise UsageError(
                "A benchmark needs at least one run, and --max-runs must be --runs or more, but "
                f"--runs is {self.min_runs} and --max-runs is {self.max_runs}.",
                f"Raise --runs to 1 or more ({MIN_PAIRS} for a ratio), and --max-runs to --runs or "
                "more.",
            )
        if self.precision <= 0 or self.max_seconds <= 0:
            raise UsageError(
                f"--precision and --seconds must be above 0, but they are {self.precision:g} and "
                f"{self.max_seconds:g}.",
                "Leave these options out to use the defaults.",
            )


@dataclass(frozen=True)
class Timing:
    """Seconds of every run that counted, in order, and the warm-up before them.

    ``warm`` is false if times were still changing when warm-up had to end.
    """

    seconds: tuple[float, ...]
    warm_up_runs: int = 0
    warm: bool = True

    @property
    def median(self) -> float:
        """The median of the runs in seconds."""
        return float(np.median(self.seconds))

    @property
    def variation(self) -> float:
        """The coefficient of variation: the standard deviation divided by the mean."""
        mean = float(np.mean(self.seconds))
        return float(np.std(self.seconds, ddof=1)) / mean if len(self.seconds) > 1 else 0.0

    def percentile(self, share: float) -> float:
        """Return the seconds that ``share`` (0-100) percent of the runs did not exceed."""
        return float(np.percentile(self.seconds, share))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the median, in seconds; see :func:`median_interval`."""
        return median_interval(self.seconds)

    @property
    def precision(self) -> float:
        """Half the width of the interval, divided by the median; infinite with too few runs."""
        low, high = self.interval
        return (high - low) / 2 / self.median

    def to_dict(self) -> dict[str, Any]:
        """Return all figures in milliseconds, and the seconds of every run."""
        low, high = (1e3 * bound for bound in self.interval)
        bounds = [low, high] if math.isfinite(high) else None
        return {
            "median_ms": 1e3 * self.median,
            "median_interval_ms": bounds,
            "p90_ms": 1e3 * self.percentile(90),
            "p99_ms": 1e3 * self.percentile(99),
            "variation": self.variation,
            "runs": len(self.seconds),
            "warm_up_runs": self.warm_up_runs,
            "warm": self.warm,
            "samples_ms": [round(1e3 * each, 4) for each in self.seconds],
        }


def median_interval(values: tuple[float, ...]) -> tuple[float, float]:
    """Return an interval that holds the median with at least 95% confidence.

    It is the interval of the sign test: the r-th smallest and the r-th largest value, with the
    largest r for which 2·P(Binomial(n, 1/2) < r) is at most 5%. It assumes nothing about the
    distribution, but it assumes that the number of values does not depend on the values: the
    interval of a run that ends once it is narrow enough is a little less certain. With fewer than
    six values the interval is infinite.
    """
    count = len(values)
    tail, rank = 0.0, 0
    while rank < count // 2:
        tail += math.comb(count, rank) / 2**count
        if 2 * tail > 1 - CONFIDENCE:
            break
        rank += 1
    if rank == 0:
        return -math.inf, math.inf
    ordered = sorted(values)
    return ordered[rank - 1], ordered[-rank]


def measure_interleaved(
    contenders: Mapping[str, Run],
    schedule: Schedule | None = None,
    *,
    clock: Clock = time.perf_counter,
    pause: float = PAUSE_S,
) -> dict[str, Timing]:
    """Time several things in turns, so that disturbances affect all of them.

    A round runs every contender once, in an order that rotates. The i-th times of two contenders
    belong together: :func:`compare` takes them as pairs.

    Args:
        contenders: the functions to run, by name.
        schedule: when to end: when all medians are precise enough.
        clock: returns seconds.
        pause: seconds of rest before a run; see :data:`PAUSE_S`.
    """
    schedule = schedule or Schedule()
    warm_ups = {name: _warm_up(run, schedule, clock) for name, run in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    settling_runs = schedule.settling_runs if len(names) > 1 else 0
    begun, rounds = clock(), 0
    while True:
        for name in names:
            if pause:
                time.sleep(pause)
            for _ in range(settling_runs):
                contenders[name]()
            times[name].append(seconds_of(contenders[name], clock))
        names.append(names.pop(0))
        rounds += 1
        if rounds < schedule.min_runs:
            continue
        timings = {each: Timing(tuple(times[each]), *warm_ups[each]) for each in contenders}
        is_over = rounds >= schedule.max_runs or clock() - begun >= schedule.max_seconds
        if is_over or all(each.precision <= schedule.precision for each in timings.values()):
            return timings


def seconds_of(run: Run, clock: Clock = time.perf_counter) -> float:
    """Run once and return the seconds that it took."""
    start = clock()
    run()
    return clock() - start


def _warm_up(run: Run, schedule: Schedule, clock: Clock) -> tuple[int, bool]:
    """Run until two windows agree; return the number of runs, and whether the windows agreed."""
    begun = clock()
    times: list[float] = []
    while True:
        times.append(seconds_of(run, clock))
        if len(times) >= 2 * WARM_UP_WINDOW:
            now = np.median(times[-WARM_UP_WINDOW:])
            before = np.median(times[-2 * WARM_UP_WINDOW : -WARM_UP_WINDOW])
            if abs(now - before) <= WARM_UP_TOLERANCE * before:
                return len(times), True
        if clock() - begun > schedule.warm_up_seconds:
            return len(times), False


@dataclass(frozen=True)
class Ratio:
    """The speed of a candidate divided by that of another thing; above 1, the candidate is faster.

    ``median`` is taken over ``pairs`` of runs that followed each other; ``low`` and ``high`` bound
    it with 95% confidence (:func:`median_interval`).
    """

    median: float
    low: float
    high: float
    pairs: int

    @property
    def verdict(self) -> str:
        """``faster`` or ``slower`` if the interval excludes 1, else ``no difference shown``."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no difference shown"

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f}-{self.high:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """Return the ratio for JSON."""
        return {
            "median": self.median,
            "interval": [self.low, self.high],
            "pairs": self.pairs,
            "verdict": self.verdict,
        }


def compare(candidate: Timing, other: Timing) -> Ratio:
    """Return the speed of ``candidate`` divided by that of ``other``; the two took turns.

    Raises:
        UsageError: there are fewer than seven pairs, which prove nothing, or the two things have
            different numbers of runs.
    """
    pairs = min(len(candidate.seconds), len(other.seconds))
    if pairs < MIN_PAIRS or len(candidate.seconds) != len(other.seconds):
        raise UsageError(
            f"A ratio needs at least {MIN_PAIRS} interleaved pairs of runs, but there are "
            f"{len(candidate.seconds)} and {len(other.seconds)} runs.",
            f"Request at least {MIN_PAIRS} runs.",
        )
    ratios = tuple(
        theirs / ours for ours, theirs in zip(candidate.seconds, other.seconds, strict=True)
    )
    low, high = median_interval(ratios)
    return Ratio(float(np.median(ratios)), low, high, pairs)

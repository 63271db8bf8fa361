"""Reliable timing for ``bench`` and ``benchmarks/*.py``; it does not need torch."""

from effdet_deploy.benchmark.machine import LoadWatch, Machine, describe_machine
from effdet_deploy.benchmark.measure import Ratio, Schedule, Timing, compare, measure_interleaved

__all__ = [
    "LoadWatch",
    "Machine",
    "Ratio",
    "Schedule",
    "Timing",
    "compare",
    "describe_machine",
    "measure_interleaved",
]

"""Timing that can be trusted: the engine of ``bench`` and of ``benchmarks/*.py``; no torch here."""

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

"""Timing that can be trusted: the engine of ``bench`` and of ``benchmarks/*.py``; no torch here."""

from effdet_deploy.benchmark.machine import LoadWatch, Machine, describe_machine
from effdet_deploy.benchmark.measure import Plan, Ratio, Timing, compare, measure_interleaved

__all__ = [
    "LoadWatch",
    "Machine",
    "Plan",
    "Ratio",
    "Timing",
    "compare",
    "describe_machine",
    "measure_interleaved",
]

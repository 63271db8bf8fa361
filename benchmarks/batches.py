"""What an image costs in a batch, against what it costs alone: in turns, on the same machine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from exports import our_file, our_input
from peers import OURS

from effdet_deploy.benchmark import Plan
from effdet_deploy.benchmark.measure import compare, measure_interleaved
from effdet_deploy.detection.detector import Detector

if TYPE_CHECKING:
    from cases import Case, Weights

ENGINES = {OURS: "onnxruntime", "ours, OpenVINO FP32": "openvino"}
PLAN = Plan(min_runs=11, max_runs=31, max_seconds=30.0)


def batch_costs(case: Case, weights: Weights, names: list[str]) -> dict[str, dict[str, Any]]:
    """Measure it in those of our FP32 engines that are in ``names``.

    Returns:
        By name, an image's time in the batch over that of a single image: the median over
        neighbouring runs, and its 95% interval.
    """
    return {name: _cost(case, weights, engine) for name, engine in ENGINES.items() if name in names}


def _cost(case: Case, weights: Weights, engine: str) -> dict[str, Any]:
    feed = our_input(case, weights, "end to end")
    path = our_file(case, weights, "end to end")
    with Detector.load(path, engine, "cpu", case.threads) as detector:
        runs = {
            "batch": partial(detector.detect_prepared, feed),
            "one": partial(detector.detect_prepared, feed[:1]),
        }
        timings = measure_interleaved(runs, PLAN)
    cost, size = compare(timings["one"], timings["batch"]), len(feed)
    return {
        "median": cost.median / size,
        "low": cost.low / size,
        "high": cost.high / size,
        "pairs": cost.pairs,
    }

"""How much of our graph's time lies outside the network: preprocess, selection, decode and NMS.

The whole graph and the network alone take turns, so that the share is of one and the same machine.
An engine's own profile says where time goes, and overstates the many small nodes of the rest:
timing a node takes about as long as computing a small one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from engines import bound_run, openvino_session
from exports import our_file, our_input
from peers import OURS

from effdet_deploy.benchmark import Plan
from effdet_deploy.benchmark.measure import compare, measure_interleaved

if TYPE_CHECKING:
    from cases import Case, Weights
    from peers import Run

PLAN = Plan(min_runs=41, max_runs=121, max_seconds=30.0, precision=0.005)
"""A share of a few hundredths needs more pairs than a ratio does."""


@dataclass(frozen=True)
class Outside:
    """One less the network's share: the median over neighbouring runs and its 95% interval."""

    median: float
    low: float
    high: float
    pairs: int


def outside_shares(case: Case, weights: Weights, names: list[str]) -> dict[str, dict[str, Any]]:
    """Measure it in those of our FP32 engines that are in ``names``."""
    inputs = {part: our_input(case, weights, part) for part in ("end to end", "network")}
    files = {part: our_file(case, weights, part) for part in inputs}
    engines = {
        OURS: partial(bound_run, threads=case.threads),
        "ours, OpenVINO FP32": lambda path, feed: partial(
            openvino_session(path, case, "f32"), feed
        ),
    }
    return {
        name: asdict(_measured({part: make(files[part], inputs[part]) for part in inputs}))
        for name, make in engines.items()
        if name in names
    }


def _measured(runs: dict[str, Run]) -> Outside:
    timings = measure_interleaved(runs, PLAN)
    network = compare(timings["end to end"], timings["network"])
    return Outside(1 - network.median, 1 - network.high, 1 - network.low, network.pairs)

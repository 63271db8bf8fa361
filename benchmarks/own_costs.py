"""Measure what parts of our own graph cost: two of our runs take turns on the same machine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from graphs import CANDIDATES, NETWORK, PARTS, WHOLE
from headline import ALL_CANDIDATES_ENDING
from peers import (
    ALL_CANDIDATES,
    OPENVINO,
    OURS,
    OURS_FLOAT32,
    bound_run,
    openvino_session,
)

from effdet_deploy.artifact.spec import EFFDET_CANDIDATES
from effdet_deploy.benchmark import Schedule, compare, measure_interleaved
from effdet_deploy.detection.detector import Detector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphs import Case

OUTSIDE_SCHEDULE = Schedule(min_runs=41, max_runs=121, max_seconds=30.0, precision=0.005)
"""A share of a few percent needs more pairs of runs than a ratio does."""
BATCH_SCHEDULE = Schedule(min_runs=11, max_runs=31, max_seconds=30.0)


def outside_shares(case: Case, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Measure the share of preprocess, selection, decode and NMS in our FP32 files in ``names``.

    A runtime's own profile overstates the many small nodes outside the network: timing a node takes
    about as long as computing a small one. So the whole graph and the network alone take turns.

    Returns:
        By name, the share of the time that is spent outside the network (1 minus the network's
        share): the median over neighboring runs, and its 95% interval.
    """
    inputs = {part: case.our_input(part) for part in PARTS}
    runtimes = {
        OURS: partial(bound_run, threads=case.threads),
        OPENVINO: lambda path, feed: partial(openvino_session(path, case, "f32"), feed),
    }
    found = {}
    for name in (each for each in OURS_FLOAT32 if each in names):
        candidates = EFFDET_CANDIDATES if name in ALL_CANDIDATES else CANDIDATES
        whole = case.our_file(WHOLE, candidates=candidates)
        files = {WHOLE: whole, NETWORK: case.our_file(NETWORK)}
        start = runtimes[name.removesuffix(ALL_CANDIDATES_ENDING)]
        runs = {part: start(files[part], inputs[part]) for part in PARTS}
        timings = measure_interleaved(runs, OUTSIDE_SCHEDULE)
        share = compare(timings[WHOLE], timings[NETWORK])
        found[name] = {
            "median": 1 - share.median,
            "low": 1 - share.high,
            "high": 1 - share.low,
            "pairs": share.pairs,
        }
    return found


def batch_costs(case: Case, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Measure what an image costs in a batch, in our FP32 files in ``names``.

    Returns:
        By name, the time per image in the batch, divided by the time of a single image: the median
        over neighboring runs, and its 95% interval.
    """
    feed, path = case.our_input(WHOLE), case.our_file(WHOLE)
    runtimes = {OURS: "onnxruntime", OPENVINO: "openvino"}
    found = {}
    for name in (each for each in runtimes if each in names):
        with Detector.load(path, runtimes[name], "cpu", case.threads) as detector:
            runs = {
                "batch": partial(detector.detect_prepared, feed),
                "one": partial(detector.detect_prepared, feed[:1]),
            }
            timings = measure_interleaved(runs, BATCH_SCHEDULE)
        cost, size = compare(timings["one"], timings["batch"]), len(feed)
        found[name] = {
            "median": cost.median / size,
            "low": cost.low / size,
            "high": cost.high / size,
            "pairs": cost.pairs,
        }
    return found

"""Whether a reduced precision pays on this machine: timed against FP32, in turns."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

from effdet_deploy.benchmark.machine import LoadWatch
from effdet_deploy.benchmark.measure import Plan, compare, measure_interleaved
from effdet_deploy.benchmark.samples import sample_batch
from effdet_deploy.detection.detector import Detector
from effdet_deploy.errors import DeviceError, EffdetDeployError, MissingPackageError
from effdet_deploy.exporters.lowering import exact_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from effdet_deploy.artifact.spec import DetectorSpec, Target
    from effdet_deploy.benchmark.machine import Load
    from effdet_deploy.benchmark.measure import Ratio
    from effdet_deploy.progress import Progress

    Run = Callable[[], object]

ENGINES: dict[Target, str] = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
"""Those that run here; TensorRT's speed is told by the machine that the engine is built on."""
LONGEST_RUN_S = 2.0
"""A model that takes longer for an image is not timed: the export would take minutes more."""
_PLAN = Plan(min_runs=11, max_runs=31, max_seconds=10.0, warm_up_seconds=3.0)


def speed_notes(path: Path, spec: DetectorSpec, progress: Progress) -> tuple[str, ...]:
    """Return a sentence on how fast the INT8 file at ``path`` is beside the FP32 file it came from.

    There is none for other precisions, and for an engine that is not run here. An export that is
    verified is not lost because it could not be timed.
    """
    target = spec.precision.target
    exact = exact_path(path)
    if spec.precision.kind != "int8" or target not in ENGINES or not exact.is_file():
        return ()
    try:
        return (_measured(path, exact, target, progress),)
    except (MissingPackageError, DeviceError):
        return ()
    except EffdetDeployError as error:
        return (f"INT8 could not be timed against FP32: {error.cause}",)


def _measured(candidate: Path, exact: Path, target: Target, progress: Progress) -> str:
    with contextlib.ExitStack() as stack:
        runs = [_run(stack, each, target) for each in (candidate, exact)]
        progress("timing it against FP32")
        slowest = max(_seconds(run) for run in runs)
        if slowest > LONGEST_RUN_S:
            long = f"A run takes {slowest:.0f} s here, too long to time at every export"
            return f"{long}: compare with FP32 by 'effdet-deploy bench'."
        with LoadWatch() as watch:
            timings = measure_interleaved({"candidate": runs[0], "exact": runs[1]}, _PLAN)
    ratio = compare(timings["candidate"], timings["exact"])
    return _sentence(ratio, ENGINES[target], watch.load)


def _run(stack: contextlib.ExitStack, path: Path, target: Target) -> Run:
    detector = stack.enter_context(Detector.load(path, backend=target, device="cpu"))
    feed = sample_batch(detector.spec, detector.spec.batch.optimum)
    return partial(detector.detect_prepared, feed)


def _seconds(run: Run) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _sentence(ratio: Ratio, engine: str, load: Load) -> str:
    busy = " The machine was busy meanwhile, so measure again." if load.reasons else ""
    if ratio.verdict == "faster":
        return f"INT8 is {ratio} as fast as FP32 in {engine} on this machine.{busy}"
    return (
        f"INT8 is not faster than FP32 in {engine} on this machine: {ratio} of its speed; "
        f"FP32 is the better choice here.{busy}"
    )

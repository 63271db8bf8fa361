"""Benchmarking exported models: every artifact on the same pictures, in turns."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.artifact.tensors import batch_range
from effdet_deploy.benchmark.ceilings import measure_ceilings
from effdet_deploy.benchmark.footprint import measure_footprint
from effdet_deploy.benchmark.machine import LoadWatch, describe_machine
from effdet_deploy.benchmark.measure import MIN_PAIRS, Plan, measure_interleaved
from effdet_deploy.benchmark.profile import profile_onnx, profile_openvino, stage_shares
from effdet_deploy.benchmark.ratio import compare
from effdet_deploy.benchmark.samples import sample_batch
from effdet_deploy.benchmark.work import convolution_work
from effdet_deploy.detection.detector import Detector
from effdet_deploy.detection.postprocess import finish_heads
from effdet_deploy.errors import DeviceError, ResourceError, TensorError
from effdet_deploy.files import distinct_names
from effdet_deploy.progress import silent
from effdet_deploy.runtimes.adapter import SideBySideRuntime, TimedRuntime
from effdet_deploy.runtimes.lanes import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.benchmark.footprint import Footprint
    from effdet_deploy.benchmark.machine import Load, Machine
    from effdet_deploy.benchmark.measure import Timing
    from effdet_deploy.benchmark.profile import NodeTime
    from effdet_deploy.benchmark.ratio import Ratio
    from effdet_deploy.benchmark.work import Reached, Work
    from effdet_deploy.progress import Progress

_STAGE_RUNS = 10
_PROFILERS = {"onnxruntime": profile_onnx, "openvino": profile_openvino}
"""What tells where the time goes inside the graph, by engine; both run ONNX files."""


@dataclass(frozen=True)
class Settings:
    """What to run artifacts on; ``batches`` empty means the size each was tuned for."""

    backend: str = "auto"
    device: str = "auto"
    batches: tuple[int, ...] = ()
    threads: tuple[int | None, ...] = (None,)
    trust: bool = False
    plan: Plan = field(default_factory=Plan)


@dataclass(frozen=True)
class Result:
    """One artifact at one batch size and thread count.

    Attributes:
        end_to_end: from letterboxed arrays in host memory to rows of detections there.
        stages: median seconds of the parts of a run that can be told apart from outside; none where
            the images of a batch are computed side by side.
        shares: of the engine's time by part of the graph; empty where it keeps no profile.
        ratio: against the first artifact of the same batch; above 1 means that this one is faster.
        footprint: what a process of its own takes to load it and detect once.
        file_size: with the data files that belong to it, in bytes.
        work: of its convolutions for the whole batch; None where the engine's file does not say.
        reached: shares of what this machine can do at best; None on another device than the CPU.
    """

    name: str
    backend: str
    device: str
    precision: str
    batch: int
    threads: int | None
    end_to_end: Timing
    stages: dict[str, float]
    shares: dict[str, float]
    ratio: Ratio | None
    footprint: Footprint
    file_size: int
    work: Work | None
    reached: Reached | None

    @property
    def throughput(self) -> float:
        """Images a second."""
        return self.batch / self.end_to_end.median

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON; times in milliseconds."""
        return {
            "name": self.name,
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "batch": self.batch,
            "threads": self.threads,
            "images_per_second": self.throughput,
            "end_to_end": self.end_to_end.to_dict(),
            "stages_ms": {stage: 1e3 * seconds for stage, seconds in self.stages.items()},
            "graph_shares": self.shares,
            "ratio_to_first": None if self.ratio is None else self.ratio.to_dict(),
            "footprint": asdict(self.footprint),
            "file_size": self.file_size,
            "work": None if self.work is None else asdict(self.work),
            "reached": None if self.reached is None else asdict(self.reached),
        }


@dataclass(frozen=True)
class Benchmark:
    """The results, where they were measured, and what else went on there."""

    machine: Machine
    load: Load
    results: tuple[Result, ...]


def bench(
    paths: Sequence[Path],
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Benchmark:
    """Time each artifact at every batch size and thread count, in turns with the others.

    Whether the numbers can be trusted is in the result's ``load``; see :meth:`Load.require_quiet`.

    Raises:
        UsageError: no runs, or a batch size below 1.
        TensorError: an artifact does not take a batch size that was asked for.
        DeviceError: the device is not there, or the engine runs on another.
    """
    settings = settings or Settings()
    results: list[Result] = []
    with LoadWatch() as watch:
        for threads in settings.threads:
            with contextlib.ExitStack() as stack:
                loaded = [
                    _load(stack, name, path, threads, settings)
                    for name, path in zip(distinct_names(paths), paths, strict=True)
                ]
                for batch, chosen in _by_batch(loaded, settings.batches).items():
                    progress(_stage_name(batch, threads))
                    results += _measure_batch(chosen, batch, threads, settings.plan)
    return Benchmark(describe_machine(), watch.load, tuple(results))


@dataclass(frozen=True)
class _Loaded:
    name: str
    path: Path
    detector: Detector
    footprint: Footprint


def _load(
    stack: contextlib.ExitStack, name: str, path: Path, threads: int | None, settings: Settings
) -> _Loaded:
    detector = Detector.load(path, settings.backend, settings.device, threads, settings.trust)
    stack.callback(detector.close)
    require_device(detector.runtime.device, settings.device)
    batches = settings.batches or (detector.spec.batch.optimum,)
    for batch in batches:
        _require_batch(name, detector.spec, batch)
    footprint = measure_footprint(
        path, settings.backend, settings.device, threads, batches[0], trust=settings.trust
    )
    return _Loaded(name, path, detector, footprint)


def require_device(actual: str, asked: str) -> None:
    """Check that a model runs where it was asked to; ``auto`` takes any device.

    Raises:
        DeviceError: it runs elsewhere, so its time would be told of the wrong device.
    """
    kind, _, index = asked.partition(":")
    same = actual == asked or (not index and actual.partition(":")[0] == kind)
    if asked != "auto" and not same:
        raise DeviceError(
            f"The benchmark was asked for on '{asked}', and the engine runs on '{actual}'.",
            f"Pass --device {actual.partition(':')[0]}, or run it where there is such a device.",
        )


def _by_batch(loaded: Sequence[_Loaded], asked: tuple[int, ...]) -> dict[int, list[_Loaded]]:
    """Return what is timed at each batch size: everything, or what was tuned for it."""
    if asked:
        return {batch: list(loaded) for batch in asked}
    found: dict[int, list[_Loaded]] = {}
    for each in loaded:
        found.setdefault(each.detector.spec.batch.optimum, []).append(each)
    return found


def _require_batch(name: str, spec: DetectorSpec, batch: int) -> None:
    if not spec.batch.minimum <= batch <= spec.batch.maximum:
        raise TensorError(
            f"'{name}' takes a batch of {batch_range(spec.batch)}, not {batch}.",
            "Choose another --batch, or export the model with a range such as 1..8.",
        )


def _stage_name(batch: int, threads: int | None) -> str:
    return f"timing batch {batch} on {threads or 'the default number of'} threads"


def _measure_batch(
    loaded: Sequence[_Loaded], batch: int, threads: int | None, plan: Plan
) -> list[Result]:
    feeds = [sample_batch(each.detector.spec, batch) for each in loaded]
    runs = {
        each.name: partial(each.detector.detect_prepared, feed)
        for each, feed in zip(loaded, feeds, strict=True)
    }
    timings = measure_interleaved(runs, plan)
    first = loaded[0]
    return [
        _result(
            each, feed, timings[each.name], None if each is first else timings[first.name], threads
        )
        for each, feed in zip(loaded, feeds, strict=True)
    ]


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _result(
    each: _Loaded, feed: NDArray[Any], timing: Timing, first: Timing | None, threads: int | None
) -> Result:
    runtime = each.detector.runtime
    can_compare = first is not None and len(timing.seconds) >= MIN_PAIRS
    work = reached = None
    if runtime.backend in _PROFILERS:
        work = convolution_work(each.path, {INPUT_NAME: feed})
        if runtime.device == "cpu" and work.macs:
            # Without them there is still all that was timed.
            with contextlib.suppress(ResourceError):
                ceilings = measure_ceilings(threads or len(usable_cpus()))
                reached = work.reached(timing.median, ceilings)
    divided = isinstance(runtime, SideBySideRuntime) and runtime.divides(len(feed))
    # Side by side, each image is computed on one thread.
    profile = _profile(each, feed[:1], 1) if divided else _profile(each, feed, threads)
    return Result(
        name=each.name,
        backend=runtime.backend,
        device=runtime.device,
        precision=runtime.precision,
        batch=len(feed),
        threads=threads,
        end_to_end=timing,
        stages={} if divided else _stages(each.detector, feed),
        shares=stage_shares(profile),
        ratio=compare(timing, first) if first is not None and can_compare else None,
        footprint=each.footprint,
        file_size=each.path.stat().st_size
        + sum(external.size for external in runtime.spec.external_files),
        work=work,
        reached=reached,
    )


def _profile(each: _Loaded, feed: NDArray[Any], threads: int | None) -> list[NodeTime]:
    runtime = each.detector.runtime
    if runtime.backend not in _PROFILERS or runtime.device != "cpu":
        return []
    return _PROFILERS[runtime.backend](each.path, {INPUT_NAME: feed}, threads=threads)


def _stages(detector: Detector, feed: NDArray[Any]) -> dict[str, float]:
    """Return medians of the copies, the engine and, for raw heads, the rest in numpy."""
    runtime, spec = detector.runtime, detector.spec
    if not isinstance(runtime, TimedRuntime):
        return {}
    rows = []
    for _ in range(_STAGE_RUNS):
        run = runtime.run_timed({INPUT_NAME: feed})
        row = [run.copy_in, run.compute, run.copy_out]
        if spec.output.nms == "none":
            heads = (run.outputs["class_logits"], run.outputs["box_regression"])
            row.append(_seconds(partial(finish_heads, *heads, spec)))
        rows.append(row)
    names = ("copy in", "engine", "copy out", "finishing in numpy")
    return {name: float(each) for name, each in zip(names, np.median(rows, axis=0), strict=False)}

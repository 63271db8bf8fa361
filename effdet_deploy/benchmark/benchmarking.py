"""Benchmarking exported models: all of them on the same pictures, taking turns."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.artifact.tensors import batch_range
from effdet_deploy.benchmark.ceilings import measure_ceilings
from effdet_deploy.benchmark.footprint import measure_footprint
from effdet_deploy.benchmark.machine import LoadWatch, describe_machine, environment
from effdet_deploy.benchmark.measure import (
    MIN_PAIRS,
    Schedule,
    compare,
    measure_interleaved,
    seconds_of,
)
from effdet_deploy.benchmark.profile import PROFILERS, convolution_work, stage_shares
from effdet_deploy.benchmark.samples import sample_batch
from effdet_deploy.detection.detector import Detector
from effdet_deploy.detection.postprocess import finish_heads
from effdet_deploy.errors import DeviceError, ResourceError, TensorError
from effdet_deploy.files import distinct_names
from effdet_deploy.progress import silent
from effdet_deploy.runtimes.adapter import SideBySideRuntime, TimedRuntime
from effdet_deploy.runtimes.lanes import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.benchmark.ceilings import Reached
    from effdet_deploy.benchmark.footprint import Footprint
    from effdet_deploy.benchmark.machine import Load, Machine
    from effdet_deploy.benchmark.measure import Ratio, Timing
    from effdet_deploy.benchmark.profile import Work
    from effdet_deploy.progress import Progress

_STAGE_RUNS = 10


@dataclass(frozen=True)
class Settings:
    """How to run artifacts; without ``batches``, every one runs at the batch it is tuned for."""

    backend: str = "auto"
    device: str = "auto"
    batches: tuple[int, ...] = ()
    threads: tuple[int | None, ...] = (None,)
    trust: bool = False
    schedule: Schedule = field(default_factory=Schedule)
    allow_saturation: bool = False


@dataclass(frozen=True)
class Result:
    """The result of one artifact at one batch size and number of threads.

    Attributes:
        end_to_end: from letterboxed arrays in host memory to rows of detections in host memory.
        stages: median seconds of the parts of a run that can be timed from outside; empty if the
            images of a batch are computed in parallel.
        shares: shares of the runtime's time by part of the graph; empty if no profiler was used.
        ratio: speed compared with the first artifact at the same batch; above 1 this one is faster.
        footprint: time and memory of a new process that loads the artifact and detects once.
        file_size: size in bytes, data files included.
        work: the work of the convolutions for the whole batch; None if it cannot be counted.
        reached: shares of the machine's best performance; None unless the artifact runs on the CPU.
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
        """Images per second."""
        return self.batch / self.end_to_end.median

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON; times in milliseconds."""
        plain = asdict(self)
        named = ("name", "backend", "device", "precision", "batch", "threads")
        return {
            **{name: plain[name] for name in named},
            "images_per_second": self.throughput,
            "end_to_end": self.end_to_end.to_dict(),
            "stages_ms": {stage: 1e3 * seconds for stage, seconds in self.stages.items()},
            "graph_shares": self.shares,
            "ratio_to_first": None if self.ratio is None else self.ratio.to_dict(),
            **{name: plain[name] for name in ("footprint", "file_size", "work", "reached")},
        }


@dataclass(frozen=True)
class Benchmark:
    """The results, the machine, and the load from other programs."""

    machine: Machine
    load: Load
    results: tuple[Result, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the whole benchmark for JSON."""
        document = environment(self.machine, self.load)
        return document | {"results": [each.to_dict() for each in self.results]}


def bench(
    paths: Sequence[Path], settings: Settings | None = None, progress: Progress = silent
) -> Benchmark:
    """Time all artifacts at every batch size and number of threads, taking turns.

    The result's ``load`` says whether the numbers are reliable; see :meth:`Load.require_quiet`.

    Raises:
        UsageError: there are no runs, or a batch size is below 1.
        TensorError: an artifact does not accept a requested batch size.
        DeviceError: the device is missing, or the runtime runs on another device.
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
                # Batch sizes are those requested, or the one that an artifact is tuned for.
                tuned = [each.detector.spec.batch.optimum for each in loaded]
                for batch in dict.fromkeys(settings.batches or tuned):
                    progress(
                        f"timing batch {batch} on {threads or 'the default number of'} threads"
                    )
                    chosen = [
                        each
                        for each, own in zip(loaded, tuned, strict=True)
                        if settings.batches or own == batch
                    ]
                    results += _measure_batch(chosen, batch, threads, settings.schedule)
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
    detector = Detector.load(
        path, settings.backend, settings.device, threads, settings.trust, settings.allow_saturation
    )
    stack.callback(detector.close)
    require_device(detector.runtime.device, settings.device)
    takes = detector.spec.batch
    batches = settings.batches or (takes.optimum,)
    for batch in batches:
        if not takes.minimum <= batch <= takes.maximum:
            raise TensorError(
                f"'{name}' takes a batch of {batch_range(takes)}, not {batch}.",
                "Choose another --batch, or export the model with a range such as 1..8.",
            )
    footprint = measure_footprint(
        path, settings.backend, settings.device, threads, batches[0], trust=settings.trust
    )
    return _Loaded(name, path, detector, footprint)


def require_device(actual: str, asked: str) -> None:
    """Check that a model runs on the requested device; ``auto`` accepts any device.

    Raises:
        DeviceError: it runs on another device, so its times would be misleading.
    """
    kind, _, index = asked.partition(":")
    same = actual == asked or (not index and actual.partition(":")[0] == kind)
    if asked != "auto" and not same:
        raise DeviceError(
            f"The benchmark was requested on '{asked}', but the model runs on '{actual}'.",
            f"Pass --device {actual.partition(':')[0]}, or run it on a machine with '{asked}'.",
        )


def _measure_batch(
    loaded: Sequence[_Loaded], batch: int, threads: int | None, schedule: Schedule
) -> list[Result]:
    feeds = {each.name: sample_batch(each.detector.spec, batch) for each in loaded}
    runs = {each.name: partial(each.detector.detect_prepared, feeds[each.name]) for each in loaded}
    timings = measure_interleaved(runs, schedule)
    results = []
    for place, each in enumerate(loaded):
        timing, first = timings[each.name], timings[loaded[0].name]
        can_compare = place > 0 and len(timing.seconds) >= MIN_PAIRS
        ratio = compare(timing, first) if can_compare else None
        results.append(_result(each, feeds[each.name], timing, ratio, threads))
    return results


def _result(
    each: _Loaded, feed: NDArray[Any], timing: Timing, ratio: Ratio | None, threads: int | None
) -> Result:
    runtime = each.detector.runtime
    profiler = PROFILERS.get(runtime.backend)
    on_cpu = runtime.device == "cpu"
    work = convolution_work(each.path, {INPUT_NAME: feed}) if profiler else None
    reached = None
    if on_cpu and work and work.macs:
        # If the ceilings cannot be measured, the times are still valid.
        with contextlib.suppress(ResourceError):
            ceilings = measure_ceilings(threads or len(usable_cpus()))
            reached = ceilings.reached(work, timing.median)
    divided = isinstance(runtime, SideBySideRuntime) and runtime.divides(len(feed))
    # If images are computed in parallel, every image is computed on one thread.
    profiled, profiled_threads = (feed[:1], 1) if divided else (feed, threads)
    nodes = (
        profiler(each.path, {INPUT_NAME: profiled}, threads=profiled_threads)
        if profiler and on_cpu
        else []
    )
    return Result(
        name=each.name,
        backend=runtime.backend,
        device=runtime.device,
        precision=runtime.precision,
        batch=len(feed),
        threads=threads,
        end_to_end=timing,
        stages={} if divided else _stages(each.detector, feed),
        shares=stage_shares(nodes),
        ratio=ratio,
        footprint=each.footprint,
        file_size=each.path.stat().st_size
        + sum(external.size for external in runtime.spec.external_files),
        work=work,
        reached=reached,
    )


def _stages(detector: Detector, feed: NDArray[Any]) -> dict[str, float]:
    """Return median seconds of copies, runtime and, for raw heads, post-processing in numpy."""
    runtime, spec = detector.runtime, detector.spec
    if not isinstance(runtime, TimedRuntime):
        return {}
    rows = []
    for _ in range(_STAGE_RUNS):
        run = runtime.run_timed({INPUT_NAME: feed})
        row = [run.copy_in, run.compute, run.copy_out]
        if spec.output.nms == "none":
            heads = (run.outputs["class_logits"], run.outputs["box_regression"])
            row.append(seconds_of(partial(finish_heads, *heads, spec)))
        rows.append(row)
    names = ("copy in", "engine", "copy out", "finishing in numpy")
    return {name: float(each) for name, each in zip(names, np.median(rows, axis=0), strict=False)}

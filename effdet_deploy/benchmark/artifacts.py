"""Benchmarking exported models: every artifact on the same pictures, in turns."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.benchmark.machine import LoadWatch, describe_machine, peak_memory
from effdet_deploy.benchmark.measure import MIN_PAIRS, Plan, measure_interleaved
from effdet_deploy.benchmark.profile import profile_onnx, stage_shares
from effdet_deploy.benchmark.ratio import compare
from effdet_deploy.detector import Detector
from effdet_deploy.errors import DeviceError, TensorError
from effdet_deploy.images import to_input
from effdet_deploy.pictures import structured_pictures
from effdet_deploy.postprocess import finish_heads
from effdet_deploy.runtimes.adapter import TimedRuntime, batch_range
from effdet_deploy.spec import INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.benchmark.machine import Load, Machine
    from effdet_deploy.benchmark.measure import Timing
    from effdet_deploy.benchmark.ratio import Ratio
    from effdet_deploy.spec import DetectorSpec

SEED = 512
"""Of the pictures that are timed; no export is traced or verified with them."""
_STAGE_RUNS = 10


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
        stages: median seconds of the parts of a run that can be told apart from outside.
        shares: of the engine's time by part of the graph; empty where it keeps no profile.
        ratio: against the first artifact; above 1 means that this one is faster.
        load_seconds: from the file to a model ready to run.
        first_seconds: the first run, which may compile or allocate.
        peak_memory: of the process so far, in bytes.
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
    load_seconds: float
    first_seconds: float
    file_size: int
    peak_memory: int

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
            "load_ms": 1e3 * self.load_seconds,
            "first_result_ms": 1e3 * (self.load_seconds + self.first_seconds),
            "file_size": self.file_size,
            "peak_memory": self.peak_memory,
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
    progress: Callable[[str], None] = lambda _stage: None,
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
                loaded = [_load(stack, path, threads, settings) for path in paths]
                for batch in _batches(loaded, settings):
                    progress(_stage_name(batch, threads))
                    results += _measure_batch(loaded, batch, threads, settings.plan)
    return Benchmark(describe_machine(), watch.load, tuple(results))


@dataclass(frozen=True)
class _Loaded:
    path: Path
    detector: Detector
    seconds: float
    first: list[float]


def _load(
    stack: contextlib.ExitStack, path: Path, threads: int | None, settings: Settings
) -> _Loaded:
    begun = time.perf_counter()
    detector = Detector.load(path, settings.backend, settings.device, threads, settings.trust)
    seconds = time.perf_counter() - begun
    stack.callback(detector.close)
    require_device(detector.runtime.device, settings.device)
    return _Loaded(path, detector, seconds, [])


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


def _batches(loaded: Sequence[_Loaded], settings: Settings) -> tuple[int, ...]:
    specs = {each.path.name: each.detector.spec for each in loaded}
    chosen = settings.batches or tuple({spec.batch.optimum: None for spec in specs.values()})
    for name, spec in specs.items():
        for batch in chosen:
            if not spec.batch.minimum <= batch <= spec.batch.maximum:
                raise TensorError(
                    f"'{name}' takes a batch of {batch_range(spec.batch)}, not {batch}.",
                    "Choose another --batch, or export the model with a range such as 1..8.",
                )
    return chosen


def _stage_name(batch: int, threads: int | None) -> str:
    return f"timing batch {batch} on {threads or 'the default number of'} threads"


def _measure_batch(
    loaded: Sequence[_Loaded], batch: int, threads: int | None, plan: Plan
) -> list[Result]:
    feeds = [sample_batch(each.detector.spec, batch) for each in loaded]
    names = [f"{index} {each.path.name}" for index, each in enumerate(loaded)]
    runs = {
        name: partial(each.detector.detect_prepared, feed)
        for name, each, feed in zip(names, loaded, feeds, strict=True)
    }
    for name, each in zip(names, loaded, strict=True):
        if not each.first:
            each.first.append(_seconds(runs[name]))
    timings = measure_interleaved(runs, plan)
    return [
        _result(each, feed, timings[name], timings[names[0]] if index else None, threads)
        for index, (name, each, feed) in enumerate(zip(names, loaded, feeds, strict=True))
    ]


def sample_batch(spec: DetectorSpec, batch: int) -> NDArray[Any]:
    """Return ``batch`` seeded pictures as the model takes them."""
    pictures = structured_pictures(batch, spec.input.height, spec.input.width, SEED)
    return to_input(pictures, spec.input)


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _result(
    each: _Loaded, feed: NDArray[Any], timing: Timing, first: Timing | None, threads: int | None
) -> Result:
    runtime = each.detector.runtime
    can_compare = first is not None and len(timing.seconds) >= MIN_PAIRS
    profiled = runtime.backend == "onnxruntime" and runtime.device == "cpu"
    return Result(
        name=each.path.name,
        backend=runtime.backend,
        device=runtime.device,
        precision=runtime.precision,
        batch=len(feed),
        threads=threads,
        end_to_end=timing,
        stages=_stages(each.detector, feed),
        shares=stage_shares(profile_onnx(each.path, {INPUT_NAME: feed}, threads=threads))
        if profiled
        else {},
        ratio=compare(timing, first) if first is not None and can_compare else None,
        load_seconds=each.seconds,
        first_seconds=each.first[0],
        file_size=each.path.stat().st_size
        + sum(external.size for external in runtime.spec.external_files),
        peak_memory=peak_memory(),
    )


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

"""The course of a run: plan, find finished parts, detect in the rest on Ray, check the result."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from effdet_deploy.artifact.modelfile import check_external_files, read_spec, recognize
from effdet_deploy.batch.cluster import actors_here, connected, in_actors
from effdet_deploy.batch.coco import write_coco
from effdet_deploy.batch.places import as_given, names_in, require_folder
from effdet_deploy.batch.plan import (
    Settings,
    finished_parts,
    make_plan,
    read_plan,
    require_same,
)
from effdet_deploy.batch.sources import list_pictures
from effdet_deploy.batch.worker import Task, shipped
from effdet_deploy.detection.outputs import require_directory
from effdet_deploy.detection.thresholds import thresholds_by_class
from effdet_deploy.errors import MissingError, UsageError, limit, refuse, require_package
from effdet_deploy.files import sha256_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.batch.plan import Plan
    from effdet_deploy.detection.thresholds import ScoreThreshold

PART = 1000
"""Pictures in one file of the output; a worker that dies loses the work on at most one file."""


@dataclass(frozen=True)
class BatchOptions:
    """The options of a run.

    Attributes:
        column: for Parquet files, the column that holds pictures or their paths.
        key: for Parquet files, the column that names a picture in the output.
        score_threshold: the argument of :meth:`Detector.detect`.
        coco: a folder for the rows in COCO's form; None for no such files.
        fast_decode: decode large JPEGs at a smaller size; see :meth:`Detector.stream`.
        part: the number of pictures in a file of the output.
        resume: continue the run in the output.
        address: the address of a Ray cluster; None starts Ray on this machine.
        actors: the number of actors; None for as many as there is room for.
        cpus: processors of an actor; it decodes in this number of threads, and on a CPU the runtime
            has this number of threads too.
        gpus: GPUs of an actor; a fraction lets several actors share a GPU.
        batch: the most pictures in one run of the model; None for the model's largest batch.
        loading: further arguments of :meth:`Detector.load`.
    """

    column: str | None = None
    key: str | None = None
    score_threshold: ScoreThreshold | None = None
    coco: Path | None = None
    fast_decode: bool = False
    part: int = PART
    resume: bool = False
    address: str | None = None
    actors: int | None = None
    cpus: int = 1
    gpus: float = 0
    batch: int | None = None
    loading: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Statistics:
    """The figures of a run.

    Attributes:
        pictures: rows in the output, including those of earlier runs.
        errors: rows of pictures that could not be read.
        detections: detections in all rows.
        parts: the number of files.
        done_now: pictures of this run alone.
        seconds: the time of this run, from Ray's start to the last part.
        workers: pictures per second of a worker while it worked, by its machine and process. A lost
            worker and its successor are two workers.
    """

    pictures: int
    errors: int
    detections: int
    parts: int
    done_now: int
    seconds: float
    workers: dict[str, float]

    @property
    def rate(self) -> float:
        """Pictures per second in this run."""
        return self.done_now / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the document for ``--json``."""
        return asdict(self) | {"rate": self.rate}


def detect_in_all(
    model: Path,
    source: str,
    output: str,
    options: BatchOptions,
    progress: Callable[[int, int], None],
) -> Statistics:
    """Detect in all pictures of ``source``; the Parquet files of ``output`` have a row per picture.

    Args:
        model: an exported model on this machine.
        source: see :func:`effdet_deploy.batch.sources.list_pictures`.
        output: a folder, or an address of an object store.
        options: the options of the run.
        progress: called with the number of pictures done and of all pictures.

    Raises:
        UsageError: an option does not fit, or ``output`` holds a run and ``resume`` is not set.
        InputError: the model, the source or the plan is unusable.
        MissingError: a package, a device or a cluster is missing.
    """
    source, output = as_given(source), as_given(output)
    require_package("pyarrow", "detecting in many pictures", "batch")
    spec = _checked(model, options)
    settings = Settings(
        source=source,
        column=options.column,
        key=options.key,
        model=sha256_file(model),
        score_threshold=options.score_threshold,
        fast_decode=options.fast_decode,
    )
    if options.coco is not None:
        require_directory(options.coco)
    require_folder(output)
    plan = _plan_to_continue(output, settings, options.resume)
    if plan is None:
        listing = list_pictures(source, options.column, options.key)
        plan = make_plan(output, listing, settings, options.part)
    done = finished_parts(output, plan)
    missing = [number for number in range(len(plan.counts)) if number not in done]
    start = time.monotonic()
    workers: dict[str, float] = {}
    if missing:
        task = Task(output, plan, model, None, options.loading, options.cpus, options.batch)
        workers = _detect(task, spec, missing, options, progress)
        require_folder(output)
        done = finished_parts(output, plan)
        _require_all(plan, output, len(done))
    seconds = time.monotonic() - start if missing else 0.0
    if options.coco is not None:
        write_coco(output, plan, options.coco, spec.classes)
    return Statistics(
        pictures=plan.pictures,
        errors=sum(each.errors for each in done.values()),
        detections=sum(each.detections for each in done.values()),
        parts=len(done),
        done_now=sum(plan.counts[number] for number in missing),
        seconds=seconds,
        workers=workers,
    )


def _checked(model: Path, options: BatchOptions) -> DetectorSpec:
    """Check options without a runtime, which may be installed on the other machines only."""
    spec = read_spec(model, recognize(model))
    if spec.external_files:
        check_external_files(model, spec)
    if options.score_threshold is not None:
        floor = spec.output.score_threshold
        thresholds_by_class(options.score_threshold, [each.name for each in spec.classes], floor)
    batch, actors = options.batch, options.actors
    most = spec.batch.maximum
    refuse(
        limit("--part", "at least 1", options.part, options.part >= 1),
        limit("--actors", "at least 1", actors, actors is None or actors >= 1),
        limit("--cpus-per-actor", "at least 1", options.cpus, options.cpus >= 1),
        limit("--gpus-per-actor", "0 or more", options.gpus, options.gpus >= 0),
        limit("--batch", f"from 1 to {most}", batch, batch is None or 1 <= batch <= most),
    )
    return spec


def _plan_to_continue(output: str, settings: Settings, resume: bool) -> Plan | None:
    """Return the plan of the run that is continued in ``output``; None if a new run begins.

    Raises:
        UsageError: there are results of another run, or of the same run without ``resume``.
    """
    plan = read_plan(output)
    if plan is None:
        if any(each.endswith(".parquet") for each in names_in(output)):
            raise UsageError(
                f"OUTPUT '{output}' has Parquet files, but not the file '_plan' that every "
                "run writes.",
                "Name a new folder.",
            )
        return None
    if resume:
        require_same(plan, settings)
        return plan
    if finished_parts(output, plan):
        raise UsageError(
            f"OUTPUT '{output}' holds the results of a run.",
            "Add --resume to continue it, or name a new folder.",
        )
    return None


def _detect(
    task: Task,
    spec: DetectorSpec,
    missing: list[int],
    options: BatchOptions,
    progress: Callable[[int, int], None],
) -> dict[str, float]:
    """Write the missing parts, and return how many pictures per second every worker did."""
    counts = task.plan.counts
    told = task.plan.pictures - sum(counts[number] for number in missing)
    pictures: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    progress(told, task.plan.pictures)
    with connected(options.address):
        if options.address is not None:
            task = replace(task, shipped=shipped(task.model, spec))
        actors = actors_here(options.cpus, options.gpus, len(missing))
        actors = min(options.actors or actors, len(missing))
        for report in in_actors(task, missing, actors, options.cpus, options.gpus):
            if report["failure"]:
                # Only our own workers write these reports.
                raise pickle.loads(report["failure"])  # noqa: S301
            pictures[report["worker"]] += report["pictures"]
            seconds[report["worker"]] += report["seconds"]
            told += report["pictures"]
            progress(told, task.plan.pictures)
    return {name: pictures[name] / seconds[name] for name in sorted(pictures)}


def _require_all(plan: Plan, output: str, parts: int) -> None:
    """Check that all parts are there: on another machine, the same path may be another folder."""
    if parts < len(plan.counts):
        raise MissingError(
            f"{len(plan.counts) - parts} of {len(plan.counts)} parts are not in OUTPUT '{output}', "
            "though workers wrote them.",
            "Name a folder that all machines of the cluster share, or an object store, and run the "
            "command again with --resume.",
        )

"""Measure how cost grows with size: ``python benchmarks/scaling.py --json docs/scaling.json``.

The axes are variant, image size, batch, threads and number of detections, in ONNX Runtime and
OpenVINO. For exports the script measures time and memory. A measurement is called a point, and is
written as soon as it is made. If a run was interrupted, or ended by ``--max-seconds``, ``--resume``
goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling_section import AXES, scaling_section
from store import (
    KEEPS_BYTECODE,
    Record,
    add_keeping,
    circumstances,
    code_digest,
    command_of,
    folder,
    tell,
)

from effdet_deploy.artifact.spec import INPUT_NAME, BatchSpec
from effdet_deploy.benchmark import LoadWatch, Schedule, measure_interleaved
from effdet_deploy.benchmark.child import json_of_child
from effdet_deploy.benchmark.profile import convolution_work
from effdet_deploy.benchmark.samples import sample_batch
from effdet_deploy.detection.detector import Detector
from effdet_deploy.errors import EffdetDeployError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RUNTIMES = ("onnxruntime", "openvino")
VARIANTS = "d0,d1,d2,d3,d4,d5,d6,d7x,lite0,lite2,lite4"
EXPORTED = "d0,d4,d7x"
SIZES = "256,384,512,768"
BATCHES = (1, 2, 4, 8)
THREADS = (1, 2, 4, 8, 16)
DETECTIONS = ((10, 100), (100, 500), (100, 1000), (300, 3000))
"""In pairs: how many rows leave NMS, and how many candidates (boxes) enter it."""
BASE = "d0"
"""The variant with which all axes except that of variants are measured."""
_EXPORT_LIMIT_S = 1800


@dataclass(frozen=True)
class Point:
    """One measurement: what is exported, and how it is run.

    ``kind`` is the axis of the point: variant, size, batch, threads, detections or export.
    """

    kind: str
    variant: str = BASE
    size: int | None = None
    batch: int = 1
    threads: int = 2
    detections: int = 100
    candidates: int = 1000

    @property
    def key(self) -> str:
        """The name of the point in the JSON."""
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())

    def file(self, directory: Path) -> Path:
        """Return the exported file; make it if it is missing. Batches and threads share a file."""
        what = f"{self.variant}_{self.size or 'own'}_{self.detections}of{self.candidates}"
        path = directory / f"{what}_{code_digest()}.onnx"
        if not path.exists():
            tell(f"exporting {path.name}")
            exported(self, path)
        return path


def points(options: argparse.Namespace) -> Iterator[Point]:
    """Yield every point that the options request, the cheapest axes first."""
    count, own, base = options.threads, options.image_size, options.base_size
    found = {
        "variant": [Point("variant", each, own, 1, count) for each in options.variants.split(",")],
        "batch": [Point("batch", BASE, base, each, count) for each in BATCHES],
        "threads": [Point("threads", BASE, base, 1, each) for each in THREADS if each <= count],
        "detections": [Point("detections", BASE, base, 1, count, *each) for each in DETECTIONS],
        "size": [Point("size", BASE, int(each), 1, count) for each in options.sizes.split(",")],
        "export": [Point("export", each, own, 1, count) for each in options.exported.split(",")],
    }
    for axis, chosen in found.items():
        if axis in options.axes.split(","):
            yield from chosen


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_keeping(parser)
    parser.add_argument("--axes", default="variant,batch,threads,detections,size,export")
    parser.add_argument("--variants", default=VARIANTS)
    parser.add_argument("--exported", default=EXPORTED, help="variants to export")
    parser.add_argument("--sizes", default=SIZES, help=f"image sizes for {BASE}")
    parser.add_argument("--image-size", type=int, help="for all variants; default: their own")
    parser.add_argument("--base-size", type=int, help=f"image size of {BASE} on the other axes")
    parser.add_argument("--seconds", type=float, default=8.0, help="limit for one point")
    parser.add_argument("--max-seconds", type=float, default=900.0, help="begin no point later")
    parser.add_argument("--export-to", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--point", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if unknown := [each for each in given.axes.split(",") if each not in AXES]:
        parser.error(
            f"argument --axes: there is no {', '.join(unknown)}; choose of {', '.join(AXES)}"
        )
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every missing point; return 1 if time ran out or the machine was busy."""
    options = parse_arguments(arguments)
    if options.export_to:
        return export_here(Point(**json.loads(options.point)), options.export_to)
    try:
        record, left = scale(options, command_of(sys.argv[1:]))
    except EffdetDeployError as error:
        tell(f"error: {error}")
        return error.exit_code
    print("\n".join(scaling_section(record.document, {})))
    if left:
        tell(f"{left} points are left: run the command again with --resume.")
    return 1 if left else 0


def scale(options: argparse.Namespace, command: str) -> tuple[Record, int]:
    """Measure the requested points that are missing; return the record and how many are left."""
    record = Record.open(options.json, circumstances(), {"points": {}}, resume=options.resume)
    record.document["command"] = command
    known, left, begun = record.document["points"], 0, time.monotonic()
    with folder(options.files) as directory:
        if options.prepare:
            for point in points(options):
                if point.kind != "export":
                    point.file(directory)
            return record, 0
        for point in points(options):
            if point.key in known:
                continue
            left += 1
            if time.monotonic() - begun > options.max_seconds:
                continue
            tell(point.key)
            found = measure(point, options, directory)
            if found["reasons"] and not options.under_load:
                tell(f"  not kept: {' and '.join(found['reasons'])}")
                continue
            left -= 1
            known[point.key] = asdict(point) | found
            record.save()
    return record, left


def measure(point: Point, options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Measure one point; ``reasons`` in the result says why its numbers are not reliable."""
    if point.kind == "export":
        with tempfile.TemporaryDirectory() as made, LoadWatch() as watch:
            found = exported(point, Path(made) / "model.onnx")
        return found | {"reasons": list(watch.load.reasons)}
    path, seconds = point.file(directory), options.seconds
    schedule = Schedule(min_runs=7, max_runs=40, max_seconds=seconds, warm_up_seconds=seconds / 2)
    with contextlib.ExitStack() as stack:
        runs = {}
        for runtime in RUNTIMES:
            detector = stack.enter_context(Detector.load(path, runtime, "cpu", point.threads))
            feed = sample_batch(detector.spec, point.batch)
            runs[runtime] = partial(detector.detect_prepared, feed)
        with LoadWatch() as watch:
            timings = measure_interleaved(runs, schedule)
        spec = detector.spec
    return {
        "image_size": [spec.input.height, spec.input.width],
        "macs": convolution_work(path, {INPUT_NAME: feed}).macs,
        "engines": {name: timing.to_dict() for name, timing in timings.items()},
        "reasons": list(watch.load.reasons),
    }


def exported(point: Point, path: Path) -> dict[str, Any]:
    """Export in a process of its own; return its time and memory.

    Raises:
        RuntimeError: the export failed.
    """
    asked = ("--export-to", path, "--point", json.dumps(asdict(point)))
    found: dict[str, Any] = json_of_child(
        __file__,
        *asked,
        what=f"the export of {point.variant}",
        environment=KEEPS_BYTECODE,
        timeout=_EXPORT_LIMIT_S,
    )
    return found


def export_here(point: Point, path: Path) -> int:
    """Export in this process and print how long it took and how much memory it needed.

    If only the export is measured, the weights stay as torch initializes them, because scaling
    them so that the network detects something would need more memory than the export.
    """
    begun = time.perf_counter()
    import resource

    import torch

    from effdet_deploy import ExportOptions, export
    from effdet_deploy.benchmark.machine import peak_memory
    from effdet_deploy.pytorch.network import create_model
    from effdet_deploy.pytorch.network.random_weights import randomize

    torch.set_num_threads(point.threads)
    network = create_model(point.variant, image_size=point.size).eval()
    stored = path.parent / f"{point.variant}.pth"
    if point.kind != "export" and stored.exists():
        network.load_state_dict(torch.load(stored, weights_only=True))
    elif point.kind != "export":
        randomize(network)
        torch.save(network.state_dict(), stored)
    options = ExportOptions(
        batch=BatchSpec(1, 1, max(BATCHES)),
        max_detections=point.detections,
        candidates=point.candidates,
        verify=False,
    )
    ready = time.perf_counter()
    export(network, path, options)
    done = time.perf_counter()
    # The simplifier runs in a process of its own; the larger process counts.
    children = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    report = {
        "export_s": done - ready,
        "process_s": done - begun,
        "peak_memory": max(peak_memory(), children),
        "file_size": path.stat().st_size,
        "image_size": list(network.config.image_size),
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())

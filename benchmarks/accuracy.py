"""Measure what each precision costs in mAP, and how each technique of quantization changes the mAP.

    python benchmarks/accuracy.py --json docs/accuracy.json --document docs/precision.md

makes the FP32 export of the digits detector, the scenes, and a file in every precision. It measures
each file's mAP on the test split, its size, the share of multiply-accumulates in INT8, and its
latency in ONNX Runtime and OpenVINO. The search for INT8 layers within a budget of mAP sees only
the val split. Rows that the JSON file holds already are not measured again. Latency needs a quiet
machine: ``--no-latency`` leaves it out, ``--latency-only`` fills it in later.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accuracy_document import fill_document, sections
from accuracy_noise import noise_tables
from precisions import BASELINE, Entry, Setting, entries, prepare
from store import Record, tell

from effdet_deploy.benchmark import Schedule
from effdet_deploy.benchmark.benchmarking import Settings, bench
from effdet_deploy.benchmark.machine import environment
from effdet_deploy.detection.detector import Detector
from effdet_deploy.diagnosis.open_reference import eager_detector
from effdet_deploy.errors import EffdetDeployError
from effdet_deploy.evaluation.accuracy import difference, measure
from effdet_deploy.evaluation.cocoset import CocoSet, read_coco
from effdet_deploy.evaluation.predictions import predict
from effdet_deploy.files import sha256_file, write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effdet_deploy.evaluation.accuracy import Accuracy

RUNTIMES = ("onnxruntime", "openvino")
WEIGHTS = Path(__file__).parent.parent / "examples" / "digits" / "digits_d0.safetensors"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument(
        "--files", type=Path, default=Path("build/accuracy"), help="keep files here"
    )
    parser.add_argument("--scenes", type=int, default=1000, help="scenes of the test split")
    parser.add_argument("--technique-scenes", type=int, default=300, help="for techniques")
    parser.add_argument("--val-scenes", type=int, default=300, help="for the budget search")
    parser.add_argument("--calibration-scenes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="when accuracy is measured")
    parser.add_argument("--only", nargs="*", default=[], help="rows whose names begin with this")
    parser.add_argument("--redo", nargs="*", default=[], help="measure these rows again")
    parser.add_argument("--no-latency", action="store_true", help="do not measure latency")
    parser.add_argument("--latency-only", action="store_true", help="only measure latency")
    parser.add_argument(
        "--latency-runtimes", default=",".join(RUNTIMES), help="for example openvino"
    )
    parser.add_argument("--latency-threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=21, help="number of timed turns")
    parser.add_argument("--under-load", action="store_true", help="accept times of a busy machine")
    parser.add_argument("--snr", action="store_true", help="only measure the noise of the heads")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--document", type=Path, action="append", default=[], help="page to fill")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the rows that are missing; print the tables and put them into the documents."""
    options = parse_arguments(arguments)
    counts = {
        "train": options.calibration_scenes,
        "val": options.val_scenes,
        "test": options.scenes,
    }
    few = min(options.technique_scenes, options.scenes)
    inputs = {"weights": sha256_file(options.weights), "scenes": counts, "technique scenes": few}
    try:
        record = Record.open(options.json, {"inputs": inputs}, {"rows": {}, "noise": {}})
        setting = prepare(options.weights, options.files, counts)
        if not (options.latency_only or options.snr):
            measure_rows(setting, few, record, options)
        if not options.latency_only:
            for name, rows in noise_tables(setting):
                if options.snr or name not in record.document["noise"]:
                    record.document["noise"][name] = rows()
                    record.save()
        if not (options.no_latency or options.snr):
            measure_latency(setting, record, options)
    except EffdetDeployError as error:
        tell(f"error: {error}")
        return error.exit_code
    parts = sections(record.document)
    for text in parts.values():
        print(text)
    for path in options.document:
        fill_document(path, parts)
    return 0


def measure_rows(setting: Setting, few: int, record: Record, options: argparse.Namespace) -> None:
    """Measure every row that is not recorded yet; for techniques use the first ``few`` scenes."""
    known = {entry.name: entry for entry in entries()}
    every, first = read_coco(setting.test), read_coco(setting.test, limit=few)
    scenes = Scenes(setting, every, first, options.threads)
    for name, entry in known.items():
        again = name.startswith(tuple(options.redo)) if options.redo else False
        wanted = again or not options.only or name.startswith(tuple(options.only))
        if not wanted or (name in record.document["rows"] and not again):
            continue
        if again:
            for stored in setting.files.glob(f"{entry.stem}-{12 * '[0-9a-f]'}.results.json"):
                stored.unlink()
        tell(name)
        row: dict[str, Any] = {"engine": entry.runtime, "technique": entry.is_technique}
        begun = time.monotonic()
        try:
            row |= scenes.measured(entry, known) | {"seconds": round(time.monotonic() - begun)}
        except EffdetDeployError as error:
            row["failed"] = str(error)
        record.document["rows"][name] = row
        record.save()
        tell(f"{name}: {row.get('seconds', 0)} s, mAP {row.get('ap')}, {row.get('difference')}")


_LIMITED = """
import json, sys
from pathlib import Path
from effdet_deploy.detection.detector import Detector
from effdet_deploy.evaluation.cocoset import read_coco
from effdet_deploy.evaluation.predictions import predict
path, runtime, threads, scenes, count = json.loads(sys.argv[1])
dataset = read_coco(Path(scenes), limit=count)
settings = {"device": "cpu", "threads": threads, "allow_saturation": True}
with Detector.load(path, backend=runtime, **settings) as detector:
    print(json.dumps(predict(detector, dataset)))
"""


@dataclass(frozen=True)
class Scenes:
    """The test split (``every``), and its first scenes, on which techniques are measured."""

    setting: Setting
    every: CocoSet
    first: CocoSet
    threads: int

    def measured(self, entry: Entry, known: dict[str, Entry]) -> dict[str, Any]:
        """Make the file of one row, run it on its scenes and compare it with its baseline."""
        found: dict[str, Any] = {}
        if entry.make is not None:
            made = entry.make(self.setting, file_of(self.setting, entry))
            size = made.path.stat().st_size
            found = {"size": size, "int8_share": made.share, "remark": made.remark}
        dataset = self._scenes_of(entry)
        accuracy = self._accuracy(entry, dataset)
        found |= {"scenes": len(dataset), "ap": accuracy.ap, "ap50": accuracy.ap50}
        found["ap75"] = accuracy.ap75
        if entry.name != BASELINE:
            baseline = self._accuracy(known[entry.baseline], dataset)
            found["baseline"] = entry.baseline
            found["difference"] = asdict(difference(accuracy, baseline))
        return found

    def _scenes_of(self, entry: Entry) -> CocoSet:
        return self.first if entry.is_technique else self.every

    def _accuracy(self, entry: Entry, dataset: CocoSet) -> Accuracy:
        """Score the detections of an entry in ``dataset``; detect only if no file has them yet.

        The file's name holds a hash of the model and the scenes, so it fits only this entry.
        """
        path, scenes = file_of(self.setting, entry), self._scenes_of(entry)
        digest = hashlib.sha256((path if entry.make else self.setting.weights).read_bytes())
        digest.update(self.setting.test.read_bytes())
        digest.update(str(len(scenes)).encode())
        stored = self.setting.files / f"{entry.stem}-{digest.hexdigest()[:12]}.results.json"
        if not stored.is_file():
            if entry.limit:
                found = self._predicted_under_limit(entry, path, len(scenes))
            else:
                with self._detector(entry, path) as detector:
                    found = predict(detector, scenes)
            write_atomically(stored, json.dumps(found))
        results = json.loads(stored.read_text(encoding="utf-8"))
        return measure([each for each in results if each["image_id"] in dataset.paths], dataset)

    def _predicted_under_limit(self, entry: Entry, path: Path, count: int) -> Any:
        """Detect in a new process, in which ``entry.limit`` is oneDNN's best instruction set."""
        asked = json.dumps([str(path), entry.runtime, self.threads, str(self.setting.test), count])
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _LIMITED, asked],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": entry.limit},
            stdout=subprocess.PIPE,
            check=True,
        )
        return json.loads(done.stdout)

    def _detector(self, entry: Entry, path: Path) -> Detector:
        if entry.make is None:
            return eager_detector(self.setting.spec, str(self.setting.weights))
        return Detector.load(path, backend=entry.runtime, device="cpu", threads=self.threads)


def file_of(setting: Setting, entry: Entry) -> Path:
    """Return the path of a row's file."""
    return setting.files / f"{entry.stem}.onnx"


def measure_latency(setting: Setting, record: Record, options: argparse.Namespace) -> None:
    """Time the file of every row except techniques, in turns with FP32."""
    rows = record.document["rows"]
    timed = [
        entry
        for entry in entries()
        if entry.make is not None
        and not entry.is_technique
        and not entry.limit
        and entry.name in rows
        and "inexact" not in entry.name
    ]
    schedule = Schedule(min_runs=options.runs, max_runs=options.runs, max_seconds=3600)
    for runtime in options.latency_runtimes.split(","):
        tell(f"timing in {runtime}")
        settings = Settings(runtime, "cpu", threads=(options.latency_threads,), schedule=schedule)
        runnable = [entry for entry in timed if _loads(file_of(setting, entry), runtime)]
        found = bench([file_of(setting, entry) for entry in runnable], settings, tell)
        if not options.under_load:
            found.load.require_quiet()
        for entry, result in zip(runnable, found.results, strict=True):
            told = result.to_dict()
            rows[entry.name].setdefault("latency", {})[runtime] = {
                key: told[key] for key in ("precision", "threads", "ratio_to_first")
            } | {"median_ms": 1e3 * result.end_to_end.median}
        where = environment(found.machine, found.load)
        record.document.setdefault("latency_environment", {})[runtime] = where
        record.save()


def _loads(path: Path, runtime: str) -> bool:
    try:
        Detector.load(path, backend=runtime, device="cpu").close()
    except EffdetDeployError as error:
        tell(f"{path.name} is not timed: {error}")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())

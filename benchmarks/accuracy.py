"""One table: what each precision costs in mAP, and how each technique moves it.

    python benchmarks/accuracy.py --json docs/accuracy.json --document docs/precision.md

makes the FP32 export of the digits detector, the scenes, a file in every precision, and measures
them: mAP on the test split, size, share of the multiply-accumulates in INT8, and latency in ONNX
Runtime and OpenVINO. The budget search sees the val split only. Rows that the JSON file holds
already are not measured again. Latency wants a quiet machine: ``--no-latency`` leaves it out,
``--latency-only`` fills it in later.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accuracy_document import fill_document, sections
from accuracy_noise import noise_tables
from precisions import BASELINE, Entry, Setting, entries, prepare, tell

from effdet_deploy.benchmark import Plan
from effdet_deploy.benchmark.artifacts import Settings, bench
from effdet_deploy.detection.detector import Detector
from effdet_deploy.diagnosis.sides import eager_detector
from effdet_deploy.errors import EffdetDeployError
from effdet_deploy.evaluation.accuracy import Accuracy, difference, measure
from effdet_deploy.evaluation.cocoset import CocoSet, read_coco
from effdet_deploy.evaluation.predictions import predict
from effdet_deploy.files import sha256_file, write_atomically
from effdet_deploy.reports.benchmark import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effdet_deploy.evaluation.predictions import Results

ENGINES = ("onnxruntime", "openvino")
WEIGHTS = Path(__file__).parent.parent / "examples" / "digits" / "digits_d0.safetensors"


@dataclass
class Table:
    """What has been measured so far, kept in a JSON file after every step."""

    path: Path | None
    document: dict[str, Any]

    @classmethod
    def open(cls, path: Path | None, inputs: dict[str, Any]) -> Table:
        """Continue the table at ``path``; one of other inputs is refused, not replaced."""
        if path is not None and path.is_file():
            document = json.loads(path.read_text(encoding="utf-8"))
            if document.get("inputs") == inputs:
                return cls(path, document)
            raise SystemExit(f"{path} is of other inputs: {document.get('inputs')}; move it away")
        return cls(path, {"inputs": inputs, "rows": {}, "noise": {}})

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """What was measured, by the name of the row."""
        found: dict[str, dict[str, Any]] = self.document["rows"]
        return found

    def put(self, part: str, name: str, value: dict[str, Any]) -> None:
        """Store one result."""
        self.document[part][name] = value
        self.save()

    def save(self) -> None:
        """Write everything."""
        if self.path is not None:
            write_atomically(self.path, json.dumps(self.document, indent=1) + "\n")


@dataclass
class Bench:
    """A setting, its test sets, and the results of the baselines that were needed so far."""

    setting: Setting
    scenes: CocoSet
    fewer: CocoSet
    threads: int

    def dataset(self, entry: Entry) -> CocoSet:
        """Return the scenes that an entry is measured on."""
        return self.fewer if entry.is_technique else self.scenes

    def results(self, entry: Entry, path: Path) -> Results:
        """Return the detections of an entry, from its file of results if there is one."""
        stored = self._results_file(entry, path)
        if stored.is_file():
            found: Results = json.loads(stored.read_text(encoding="utf-8"))
            return found
        with self._detector(entry, path) as detector:
            found = predict(detector, self.dataset(entry))
        write_atomically(stored, json.dumps(found))
        return found

    def _results_file(self, entry: Entry, path: Path) -> Path:
        """Name the detections by what was run on what, so that no other's are taken for them."""
        digest = hashlib.sha256((path if entry.make else self.setting.weights).read_bytes())
        digest.update(self.setting.test.read_bytes())
        digest.update(str(len(self.dataset(entry))).encode())
        return self.setting.files / f"{entry.stem}-{digest.hexdigest()[:12]}.results.json"

    def _detector(self, entry: Entry, path: Path) -> Detector:
        if entry.make is None:
            return eager_detector(self.setting.spec, str(self.setting.weights))
        return Detector.load(path, backend=entry.engine, device="cpu", threads=self.threads)


def accuracy_of(results: Results, dataset: CocoSet) -> Accuracy:
    """Score the detections in the pictures of ``dataset``."""
    return measure([each for each in results if each["image_id"] in dataset.paths], dataset)


def measured(bench: Bench, entry: Entry, known: dict[str, Entry]) -> dict[str, Any]:
    """Make the file of one row, run it on the test scenes and compare it with its baseline."""
    begun = time.monotonic()
    path = file_of(bench.setting, entry)
    document: dict[str, Any] = {"engine": entry.engine, "technique": entry.is_technique}
    if entry.make is not None:
        made = entry.make(bench.setting, path)
        document |= {"size": path.stat().st_size, "int8_share": made.share, "remark": made.remark}
    dataset = bench.dataset(entry)
    accuracy = accuracy_of(bench.results(entry, path), dataset)
    document |= {"scenes": len(dataset), "ap": accuracy.ap, "ap50": accuracy.ap50}
    document["ap75"] = accuracy.ap75
    if entry.name != BASELINE:
        other = known[entry.baseline]
        baseline = accuracy_of(bench.results(other, file_of(bench.setting, other)), dataset)
        document["baseline"] = entry.baseline
        document["difference"] = asdict(difference(accuracy, baseline))
    return document | {"seconds": round(time.monotonic() - begun)}


def file_of(setting: Setting, entry: Entry) -> Path:
    """Return where the file of a row is made."""
    return setting.files / f"{entry.stem}.onnx"


def measure_rows(bench: Bench, table: Table, options: argparse.Namespace) -> None:
    """Measure every row that is not in the table yet; the baselines come first among them."""
    known = {entry.name: entry for entry in entries()}
    for name, entry in known.items():
        again = name.startswith(tuple(options.redo)) if options.redo else False
        wanted = not options.only or name.startswith(tuple(options.only)) or again
        if again:
            for stored in bench.setting.files.glob(f"{entry.stem}-{12 * '[0-9a-f]'}.results.json"):
                stored.unlink()
        if not wanted or (name in table.rows and not again):
            continue
        tell(name)
        try:
            row = measured(bench, entry, known)
        except EffdetDeployError as error:
            row = {"engine": entry.engine, "technique": entry.is_technique, "failed": str(error)}
        table.put("rows", name, row)
        tell(f"{name}: {row.get('seconds', 0)} s, mAP {row.get('ap')}, {row.get('difference')}")


def measure_latency(setting: Setting, table: Table, options: argparse.Namespace) -> None:
    """Time the file of every row that is not a mere technique, in turns with FP32."""
    timed = [
        entry
        for entry in entries()
        if entry.make is not None
        and not entry.is_technique
        and entry.name in table.rows
        and "inexact" not in entry.name
    ]
    plan = Plan(min_runs=options.runs, max_runs=options.runs, max_seconds=3600)
    for engine in options.latency_engines.split(","):
        tell(f"timing in {engine}")
        settings = Settings(engine, "cpu", threads=(options.latency_threads,), plan=plan)
        runnable = [entry for entry in timed if _loads(file_of(setting, entry), engine)]
        found = bench([file_of(setting, entry) for entry in runnable], settings, tell)
        if found.load.reasons and not options.under_load:
            raise SystemExit(f"not quiet: {'; '.join(found.load.reasons)}; pass --under-load")
        for entry, result in zip(runnable, found.results, strict=True):
            latency = table.rows[entry.name].setdefault("latency", {})
            latency[engine] = {
                key: value
                for key, value in result.to_dict().items()
                if key in ("precision", "threads", "ratio_to_first")
            } | {"median_ms": 1e3 * result.end_to_end.median}
        where = environment(found.machine, found.load)
        table.document.setdefault("latency_environment", {})[engine] = where
        table.save()


def _loads(path: Path, engine: str) -> bool:
    try:
        Detector.load(path, backend=engine, device="cpu").close()
    except EffdetDeployError as error:
        tell(f"{path.name} is not timed: {error}")
        return False
    return True


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--files", type=Path, default=Path("build/accuracy"), help="kept, reused")
    parser.add_argument("--scenes", type=int, default=1000, help="of the test split")
    parser.add_argument("--technique-scenes", type=int, default=300, help="for rows that explain")
    parser.add_argument("--val-scenes", type=int, default=300, help="that the budget search sees")
    parser.add_argument("--calibration-scenes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="while accuracy is measured")
    parser.add_argument("--only", nargs="*", default=[], help="rows whose names begin so")
    parser.add_argument("--redo", nargs="*", default=[], help="measure these rows again")
    parser.add_argument("--no-latency", action="store_true", help="leave latency for later")
    parser.add_argument("--latency-only", action="store_true", help="only fill in latency")
    parser.add_argument("--latency-engines", default=",".join(ENGINES), help="such as openvino")
    parser.add_argument("--latency-threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=21, help="timed turns")
    parser.add_argument("--under-load", action="store_true", help="keep times of a busy machine")
    parser.add_argument("--snr", action="store_true", help="only measure the noise of the heads")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--document", type=Path, action="append", default=[], help="fill it in")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing; print the tables and put them into the documents."""
    options = parse_arguments(arguments)
    counts = {
        "train": options.calibration_scenes,
        "val": options.val_scenes,
        "test": options.scenes,
    }
    setting = prepare(options.weights, options.files, counts)
    few = min(options.technique_scenes, options.scenes)
    inputs = {"weights": sha256_file(options.weights), "scenes": counts, "technique scenes": few}
    table = Table.open(options.json, inputs)
    if not options.latency_only:
        if not options.snr:
            scenes, fewer = read_coco(setting.test), read_coco(setting.test, limit=few)
            measure_rows(Bench(setting, scenes, fewer, options.threads), table, options)
        for name, rows in noise_tables(setting):
            if options.snr or name not in table.document["noise"]:
                table.put("noise", name, rows())
    if not options.no_latency and not options.snr:
        measure_latency(setting, table, options)
    parts = sections(table.document)
    for text in parts.values():
        print(text)
    for path in options.document:
        fill_document(path, parts)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One table: what each precision costs in mAP, and how each technique moves it.

    python benchmarks/accuracy.py --model digits.onnx --weights digits.safetensors \
        --calibration CALIBRATION --val VAL/annotations.json --test TEST/annotations.json

``--model`` is our FP32 export of ``--weights``. Every row starts from it, so rows differ in
precision alone. The budget search sees only ``--val``; every figure is of ``--test``. Naive
quantisation is ``onnxruntime.quantization.quantize_static`` at its defaults.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from effdet_deploy.cli.eval import eager_detector
from effdet_deploy.detector import Detector
from effdet_deploy.evaluation.accuracy import Accuracy, difference, measure
from effdet_deploy.evaluation.cocoset import CocoSet, read_coco
from effdet_deploy.evaluation.predictions import predict
from effdet_deploy.exporters.finishing import write_onnx
from effdet_deploy.exporters.lowering import lower_precision
from effdet_deploy.exporters.options import ExportOptions
from effdet_deploy.precision.calibration import calibration_images
from effdet_deploy.precision.convolutions import find_convolutions, int8_share
from effdet_deploy.precision.quantisation import Quantiser, Recipe
from effdet_deploy.precision.ranges import graph_inputs
from effdet_deploy.runtimes.modelfile import read_spec
from effdet_deploy.spec import INPUT_NAME, METADATA_KEY, DetectorSpec, PrecisionSpec

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET = 0.5
TECHNIQUES = {
    "min-max, nearest": Recipe("min-max", compensate=False, correct_bias=False),
    "percentile, nearest": Recipe("percentile", compensate=False, correct_bias=False),
    "entropy, nearest": Recipe("entropy", compensate=False, correct_bias=False),
    "mse, nearest": Recipe("mse", compensate=False, correct_bias=False),
    "mse, nearest, bias corrected": Recipe("mse", compensate=False, correct_bias=True),
    "mse, compensated": Recipe("mse", compensate=True, correct_bias=False),
    "mse, compensated, bias corrected": Recipe(),
}


@dataclass(frozen=True)
class Row:
    """A line of the table; ``accuracy`` is None where the file could not be made or run."""

    name: str
    accuracy: Accuracy | None
    size: int = 0
    share: float = 0.0
    remark: str = ""


@dataclass(frozen=True)
class Task:
    """What every row is made from and measured on."""

    model: Path
    spec: DetectorSpec
    calibration: Path
    val: Path
    test: CocoSet
    folder: Path


def lowered(task: Task, name: str, **options: object) -> Row:
    """Lower the FP32 file as an export would, and measure it."""
    path = task.folder / "lowered.onnx"
    shutil.copyfile(task.model, path)
    chosen = ExportOptions(calibration=task.calibration, **options)
    spec = dataclasses.replace(task.spec, precision=PrecisionSpec(chosen.precision, chosen.target))
    spec, notes = lower_precision(path, spec, chosen, progress)
    return measured(task, name, path, spec, next(iter(notes), ""))


def technique(task: Task, name: str, recipe: Recipe, kinds: tuple[str, ...]) -> Row:
    """Quantise convolutions of some kinds for OpenVINO by ``recipe``, and measure it."""
    model = onnx.load(task.model)
    images = calibration_images(task.calibration, task.spec.input)
    batches = list(graph_inputs(images, task.spec))
    quantiser = Quantiser(model, batches, "openvino", recipe, task.folder / "cache", progress)
    names = [each.name for each in quantiser.convolutions if each.kind in kinds]
    precision = PrecisionSpec("int8", "openvino")
    path = task.folder / "technique.onnx"
    spec = dataclasses.replace(task.spec, precision=precision)
    spec = write_onnx(quantiser.quantised(names), spec, path)
    row = measured(task, name, path, spec)
    return dataclasses.replace(row, share=int8_share(quantiser.convolutions, names))


def naive(task: Task) -> Row:
    """Quantise with ONNX Runtime's defaults."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    images = calibration_images(task.calibration, task.spec.input)
    feeds = iter([{INPUT_NAME: each} for each in graph_inputs(images, task.spec)])

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(feeds, None)

    path = task.folder / "naive.onnx"
    quantize_static(task.model, path, Reader())
    model = onnx.load(path)
    spec = dataclasses.replace(task.spec, precision=PrecisionSpec("int8", "onnxruntime"))
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, path)
    return measured(task, "INT8, onnxruntime.quantization defaults", path, spec)


def unrepresentable(task: Task) -> Row:
    """FP16 of weights that FP16 cannot hold exactly: each moved by up to half of its last bit."""
    path = task.folder / "inexact.onnx"
    model = onnx.load(task.model)
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".weight"):
            values = onnx.numpy_helper.to_array(tensor)
            moved = values * (1 + random.uniform(-(2.0**-12), 2.0**-12, values.shape))
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved.astype(np.float32), tensor.name))
    write_onnx(model, task.spec, path)
    inexact = dataclasses.replace(task, model=path)
    return lowered(inexact, "FP16 of inexact weights", precision="fp16", target="tensorrt")


def measured(task: Task, name: str, path: Path, spec: DetectorSpec, remark: str = "") -> Row:
    """Measure the file at ``path`` in ONNX Runtime."""
    with Detector.load(path, backend="onnxruntime", device="cpu") as detector:
        accuracy = measure(predict(detector, task.test), task.test)
    share = 0.0
    if spec.precision.kind == "int8":
        every = find_convolutions(onnx.load(task.model))
        kept = set(spec.precision.kept)
        share = int8_share(every, [each.name for each in every if each.name not in kept])
    return Row(name, accuracy, path.stat().st_size, share, remark)


def rows(task: Task, weights: str) -> list[tuple[str, Callable[[], Row]]]:
    """Return the name of every row and what makes it, in order."""
    table: list[tuple[str, Callable[[], Row]]] = []
    if weights:
        eager = "eager, effdet's post-processing"

        def in_eager() -> Row:
            detector = eager_detector(task.spec, weights)
            return Row(eager, measure(predict(detector, task.test), task.test))

        table.append((eager, in_eager))
    table.append(("FP32", lambda: measured(task, "FP32", task.model, task.spec)))
    table.append(
        ("FP16", lambda: lowered(task, "FP16", precision="fp16", target="tensorrt")),
    )
    table.append(("FP16 of inexact weights", lambda: unrepresentable(task)))
    for target in ("openvino", "tensorrt", "onnxruntime"):
        name = f"INT8 default, {target}"
        table.append(
            (name, lambda n=name, t=target: lowered(task, n, precision="int8", target=t)),
        )
    name = f"INT8 budget {BUDGET}, openvino"
    budget = {"max_map_drop": BUDGET, "eval_data": task.val}
    table.append((name, lambda: lowered(task, name, precision="int8", target="openvino", **budget)))
    for label, recipe in TECHNIQUES.items():
        table.append((label, lambda n=label, r=recipe: technique(task, n, r, ("dense",))))
    every = ("stem", "depthwise", "squeeze-excite", "predict", "dense")
    table.append(
        ("every convolution", lambda: technique(task, "every convolution", Recipe(), every))
    )
    table.append(("naive", lambda: naive(task)))
    return table


def progress(stage: str) -> None:
    """Say what is being done."""
    print(f"    {stage}", file=sys.stderr)


def documented(row: Row, baseline: Accuracy | None) -> dict[str, object]:
    """Return a row for JSON; the difference is against FP32."""
    document: dict[str, object] = {
        "name": row.name,
        "size": row.size,
        "int8_share": row.share,
        "remark": row.remark,
    }
    if row.accuracy is not None:
        document |= {"ap": row.accuracy.ap, "ap50": row.accuracy.ap50, "ap75": row.accuracy.ap75}
        if baseline is not None:
            document["difference"] = str(difference(row.accuracy, baseline))
    return document


def show(document: dict[str, object]) -> None:
    """Print a row as a line of a Markdown table."""
    ap = document.get("ap")
    print(
        f"| {document['name']} | {f'{100 * ap:.2f}' if isinstance(ap, float) else 'failed'} "
        f"| {document.get('difference', '')} | {document['size'] / 1e6:.1f} "
        f"| {document['int8_share']:.0%} | {document['remark']} |",
        flush=True,
    )


def main() -> int:
    """Measure every row; write them as they come, so that an interrupted run is not lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--weights", default="")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--only", nargs="*", default=[], help="rows whose names begin so")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        task = Task(
            given.model,
            read_spec(given.model, "onnx"),
            given.calibration,
            given.val,
            read_coco(given.test, limit=given.limit),
            Path(folder),
        )
        print("| | mAP | against FP32, points | MB | MACs in INT8 | |\n|---|---|---|---|---|---|")
        documents: list[dict[str, object]] = []
        baseline = None
        for name, make in rows(task, given.weights):
            if given.only and name != "FP32" and not name.startswith(tuple(given.only)):
                continue
            row = make()
            baseline = row.accuracy if row.name == "FP32" else baseline
            documents.append(documented(row, baseline))
            show(documents[-1])
            if given.json:
                given.json.write_text(json.dumps(documents, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

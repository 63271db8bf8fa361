"""The files that ``accuracy.py`` measures: one network in every precision, made in every way.

All of them come from one FP32 export, so they differ only in precision.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from clipping import METHODS, OtherwiseClipped
from onnx import helper, numpy_helper
from store import code_digest, finished, tell

from effdet_deploy.artifact.modelfile import read_spec
from effdet_deploy.artifact.spec import INPUT_NAME, METADATA_KEY, DetectorSpec, PrecisionSpec
from effdet_deploy.exporters import ExportOptions, export
from effdet_deploy.exporters.delivery import precision_file_path
from effdet_deploy.exporters.lowering import lower_precision
from effdet_deploy.exporters.material import read_material
from effdet_deploy.files import sha256_file
from effdet_deploy.onnxgraph.finishing import write_onnx
from effdet_deploy.onnxgraph.index import network_nodes
from effdet_deploy.onnxgraph.running import graph_inputs
from effdet_deploy.precision.int8.calibration import calibration_images
from effdet_deploy.precision.int8.convolutions import find_convolutions, int8_share
from effdet_deploy.precision.int8.layout import LAYOUTS
from effdet_deploy.precision.int8.quantizer import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from clipping import Method

    from effdet_deploy.precision.int8.convolutions import Convolution

    Take = Callable[[Convolution], bool]
    How = tuple[Method | None, Recipe]

BUDGET = 0.5
"""How many points of mAP the file with a budget may lose."""
BASELINE = "FP32"
WITHOUT_VNNI = "AVX2"
KINDS = ("stem", "depthwise", "squeeze-excite", "predict", "dense")
_NEAREST = Recipe(compensate=False, correct_bias=False)
RECIPES: dict[str, How] = {
    **{f"{name}, nearest": (method, _NEAREST) for name, method in METHODS.items()},
    "least error, nearest": (None, _NEAREST),
    "least error, nearest, bias corrected": (None, Recipe(compensate=False)),
    "least error, compensated": (None, Recipe(correct_bias=False)),
    "least error, compensated, bias corrected": (None, Recipe()),
    "least error, compensated, bias corrected, full range": (None, Recipe(int8_range="full")),
}
"""By name, how activations are clipped (None: as exports do) and how weights become INT8."""
AS_EXPORTED = RECIPES["least error, compensated, bias corrected"]
_SCENES = Path(__file__).parent.parent / "examples" / "digits" / "scenes.py"
_SPLIT_BY = 2.0**13 + 1
"""Veltkamp's constant: splitting a float32 with it keeps the 11 bits of float16's mantissa."""


@dataclass(frozen=True)
class Setting:
    """The inputs from which all rows are made.

    Attributes:
        weights: the checkpoint.
        files: the folder in which everything is made.
        model: our FP32 export of the checkpoint.
        spec: the spec of that export.
        calibration: the folder of pictures for calibration.
        val: COCO annotations for the budget search.
        test: COCO annotations for the published figures.
    """

    weights: Path
    files: Path
    model: Path
    spec: DetectorSpec
    calibration: Path
    val: Path
    test: Path


@dataclass(frozen=True)
class Made:
    """A row's file, its share of work in INT8, and a remark for the table."""

    path: Path
    share: float = 0.0
    remark: str = ""


@dataclass(frozen=True)
class Entry:
    """One row: its name, the runtime that runs it, the function that makes its file, its baseline.

    ``make`` is None for eager PyTorch. A technique is there to explain other rows and not for use.
    ``limit`` is the best instruction set that OpenVINO may use.
    """

    name: str
    runtime: str
    make: Callable[[Setting, Path], Made] | None
    baseline: str = BASELINE
    is_technique: bool = False
    limit: str = ""

    @property
    def stem(self) -> str:
        """The name in the form of a file name."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")


def prepare(weights: Path, files: Path, counts: dict[str, int]) -> Setting:
    """Make the scenes of each split and the FP32 export, unless they are there already."""
    files.mkdir(parents=True, exist_ok=True)
    sets = {split: _scenes(files, split, count) for split, count in counts.items()}
    model = files / f"fp32-{sha256_file(weights)[:12]}-{code_digest()}.onnx"
    if not model.exists():
        export(None, model, ExportOptions(weights=str(weights)), tell)
    spec = read_spec(model, "onnx")
    calibration = sets["train"].parent / "images"
    return Setting(weights, files, model, spec, calibration, sets["val"], sets["test"])


def _scenes(files: Path, split: str, count: int) -> Path:
    """Return the annotations of ``count`` scenes; the detector was trained with other seeds."""
    made = files / f"{split}-{count}"
    if not made.is_dir():
        tell(f"composing {count} scenes of the {split} split")
        with finished(made) as partly:
            shutil.rmtree(partly, ignore_errors=True)
            seed = "0" if split == "test" else "1000"
            given = ["--split", split, "--seed", seed, "--count", str(count), str(partly)]
            command = [sys.executable, str(_SCENES), *given]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return made / "annotations.json"


def entries() -> list[Entry]:
    """Return every row, in the order of the table; a baseline comes before the rows that use it."""
    default = {
        target: partial(_lowered, precision="int8", target=target)
        for target in ("openvino", "tensorrt", "onnxruntime")
    }
    full = {
        target: partial(_lowered, precision="int8", target=target, int8_range="full")
        for target in ("openvino", "onnxruntime")
    }
    limited: Any = {"limit": WITHOUT_VNNI}
    rows = [
        Entry(BASELINE, "onnxruntime", _exported),
        Entry("eager PyTorch, effdet's post-processing", "pytorch", None),
        Entry("FP16", "onnxruntime", partial(_lowered, precision="fp16", target="tensorrt")),
        Entry("FP16, every tensor rounded", "onnxruntime", _rounded, is_technique=True),
        Entry("FP32 of inexact weights", "onnxruntime", _inexact),
        Entry("FP16 of inexact weights", "onnxruntime", _inexact_fp16, "FP32 of inexact weights"),
        Entry("INT8 default, openvino", "openvino", default["openvino"]),
        Entry("INT8 default, openvino, without VNNI", "openvino", default["openvino"], **limited),
        Entry("INT8 full range, openvino", "openvino", full["openvino"]),
        Entry("INT8 full range, openvino, without VNNI", "openvino", full["openvino"], **limited),
        Entry(f"INT8 budget {BUDGET}, openvino", "openvino", _budgeted),
        Entry("INT8 default, tensorrt", "onnxruntime", default["tensorrt"]),
        Entry("INT8 default, onnxruntime", "onnxruntime", default["onnxruntime"]),
        Entry("INT8 full range, onnxruntime", "onnxruntime", full["onnxruntime"]),
        Entry("onnxruntime.quantization, defaults", "onnxruntime", _naive),
        Entry("onnxruntime.quantization, network only", "onnxruntime", _naive_network),
    ]
    # Techniques: each way to round, and each kind of layer added or left out.
    techniques: dict[str, Any] = {
        name: partial(_quantized, how=how, takes=by_default) for name, how in RECIPES.items()
    }
    dense = "pointwise and full convolutions alone"
    techniques[dense] = partial(_quantized, takes=only("dense"))
    for kind in KINDS:
        if kind != "dense":
            techniques[f"the default and {kind}"] = partial(_quantized, takes=default_and(kind))
    techniques["every convolution"] = partial(_quantized, takes=only(*KINDS))
    return rows + [
        Entry(f"INT8, {name}", "openvino", make, is_technique=True)
        for name, make in techniques.items()
    ]


def by_default(each: Convolution) -> bool:
    """Take the convolutions that are INT8 by default for OpenVINO."""
    return LAYOUTS["openvino"].takes(each)


def only(*kinds: str) -> Take:
    """Take only these kinds of convolutions."""
    return lambda each: each.kind in kinds


def default_and(kind: str) -> Take:
    """Take the default for OpenVINO and one more kind of convolution."""
    return lambda each: by_default(each) or each.kind == kind


def _exported(setting: Setting, path: Path) -> Made:
    shutil.copyfile(setting.model, path)
    return Made(path)


def _lowered(setting: Setting, path: Path, **options: Any) -> Made:
    """Lower the FP32 file to another precision as an export does."""
    shutil.copyfile(setting.model, path)
    chosen = ExportOptions(calibration=setting.calibration, **options)
    asked = dataclasses.replace(setting.spec, precision=chosen.precision_spec)
    spec, notes = lower_precision(path, asked, chosen, read_material(chosen), tell)
    precision_file_path(path).unlink(missing_ok=True)
    every = find_convolutions(onnx.load(setting.model))
    names = {each.name for each in every} - set(spec.precision.kept)
    share = int8_share(every, names) if chosen.precision == "int8" else 0.0
    remark = next((note for note in notes if "mAP lost" in note or "cannot hold" in note), "")
    return Made(path, share, remark.partition(" Layers")[0])


def _budgeted(setting: Setting, path: Path) -> Made:
    budget: dict[str, Any] = {"max_map_drop": BUDGET, "eval_data": setting.val}
    return _lowered(setting, path, precision="int8", target="openvino", **budget)


def _inexact(setting: Setting, path: Path) -> Made:
    """Move each weight by up to half of float16's last bit, so that float16 cannot hold it."""
    model = onnx.load(setting.model)
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".weight"):
            values = numpy_helper.to_array(tensor)
            moved = values * (1 + random.uniform(-(2.0**-12), 2.0**-12, values.shape))
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), tensor.name))
    write_onnx(model, setting.spec, path)
    return Made(path)


def _inexact_fp16(setting: Setting, path: Path) -> Made:
    made = _inexact(setting, path.with_suffix(".fp32.onnx"))
    inexact = dataclasses.replace(setting, model=made.path)
    return _lowered(inexact, path, precision="fp16", target="tensorrt")


def _rounded(setting: Setting, path: Path) -> Made:
    """Round every constant and computed value of the network to float16's mantissa.

    CPUs compute FP16 files in float32, without rounding between layers. This file shows the results
    of a runtime that stores float16 and accumulates in float32.
    """
    model = onnx.load(setting.model)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.float32(_SPLIT_BY), "veltkamp"))
    network = {node.name for node in network_nodes(graph)}
    read = {value for node in graph.node if node.name in network for value in node.input}
    for tensor in graph.initializer:
        if tensor.name in read and tensor.data_type == onnx.TensorProto.FLOAT:
            halved = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(halved, tensor.name))
    outputs = {value.name for value in graph.output}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.name in network and node.op_type != "Constant" and node.output[0] not in outputs:
            nodes += _rounding(node)
    del graph.node[:]
    graph.node.extend(nodes)
    write_onnx(model, setting.spec, path)
    return Made(path)


def _rounding(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return nodes that round the output of ``node``, whose own result is renamed (Dekker 1971).

    x·c - (x·c - x) keeps the upper bits of x.
    """
    value = node.output[0]
    exact, scaled, low = f"{value}.exact", f"{value}.scaled", f"{value}.low"
    node.output[0] = exact
    return [
        helper.make_node("Mul", [exact, "veltkamp"], [scaled], scaled),
        helper.make_node("Sub", [scaled, exact], [low], low),
        helper.make_node("Sub", [scaled, low], [value], f"{value}.rounded"),
    ]


def quantizer(setting: Setting, how: How, target: Any = "openvino") -> OtherwiseClipped:
    """Return a quantizer of the FP32 export with the calibration pictures."""
    images = calibration_images(setting.calibration, setting.spec.input)
    batches = list(graph_inputs(images, setting.spec))
    method, recipe = how
    model, cache = onnx.load(setting.model), setting.files / "cache"
    return OtherwiseClipped(method, model, batches, target, recipe, cache, tell)


def _quantized(setting: Setting, path: Path, takes: Take, how: How = AS_EXPORTED) -> Made:
    """Quantize some convolutions for OpenVINO."""
    made = quantizer(setting, how)
    names = [each.name for each in made.convolutions if takes(each)]
    precision = PrecisionSpec("int8", "openvino", int8_range=how[1].int8_range)
    spec = dataclasses.replace(setting.spec, precision=precision)
    write_onnx(made.quantized(names), spec, path)
    return Made(path, int8_share(made.convolutions, names))


def _naive_network(setting: Setting, path: Path) -> Made:
    """Quantize only the network: preprocessing, decoding and NMS fail in INT8."""
    graph = onnx.load(setting.model).graph
    network = {node.name for node in network_nodes(graph)}
    return _naive(setting, path, [node.name for node in graph.node if node.name not in network])


def _naive(setting: Setting, path: Path, spared: list[str] | None = None) -> Made:
    """Quantize with ONNX Runtime's own defaults and the same pictures; leave ``spared`` out."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    images = calibration_images(setting.calibration, setting.spec.input)
    feeds = iter([{INPUT_NAME: each} for each in graph_inputs(images, setting.spec)])

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            return next(feeds, None)

    quantize_static(setting.model, path, Reader(), nodes_to_exclude=spared or [])
    model = onnx.load(path)
    spec = dataclasses.replace(setting.spec, precision=PrecisionSpec("int8", "onnxruntime"))
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, path)
    every = find_convolutions(onnx.load(setting.model))
    return Made(path, int8_share(every, [each.name for each in every]))

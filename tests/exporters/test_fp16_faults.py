"""A fault that might pass for rounding to FP16 makes a correct file fail its verification."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from effdet_deploy.artifact.spec import PrecisionSpec
from effdet_deploy.exporters import ExportOptions
from effdet_deploy.exporters.lowering import lower_precision
from effdet_deploy.exporters.material import read_material
from effdet_deploy.exporters.source import load_source
from effdet_deploy.exporters.verifying import verify_onnx
from effdet_deploy.onnxgraph.index import insert_after
from effdet_deploy.progress import silent
from effdet_deploy.pytorch.reference import EagerReference
from effdet_deploy.synthetic import structured_pictures
from tests.exporters.every_config import export_graph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto, NodeProto

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.parity.verdict import ParityReport

STEM = "backbone.conv_stem.conv"
SECOND_LAYER = "backbone.blocks.0.0.conv_dw.conv"
DEPTHWISE = "backbone.blocks.4.1.conv_dw.conv"
POINTWISE = "backbone.blocks.2.1.conv_pwl.conv"
PYRAMID = "fpn.cell.1.fnode.3.after_combine.conv.conv_pw.conv"
OF_ONE_LEVEL = "box_net.conv_rep.1.level.2.conv"
PREDICT = "class_net.predict.conv_pw.gemm"
SIZES = [
    pytest.param(("lite0", (128, 128)), id="lite0"),
    pytest.param(("lite2", (384, 512)), id="lite2", marks=pytest.mark.slow),
]


@dataclass(frozen=True)
class Exported:
    """A correct FP16 file, and what it was made from."""

    model: ModelProto
    spec: DetectorSpec
    reference: EagerReference
    folder: Path

    def verified(self, model: ModelProto) -> ParityReport:
        path = self.folder / "candidate.onnx"
        onnx.save(model, path)
        size = self.spec.input.height, self.spec.input.width
        pictures = list(structured_pictures(1, *size, seed=11))
        return verify_onnx(path, self.spec, self.reference, pictures)


@pytest.fixture(scope="module", params=SIZES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    name, size = request.param
    folder = tmp_path_factory.mktemp("fp16")
    options = ExportOptions(
        weights="random", image_size=size, precision="fp16", target="tensorrt", nms="none"
    )
    source = load_source(name, options, silent)
    path, spec = export_graph(source, options, folder / "graph")
    assert spec.precision == PrecisionSpec("fp16", "tensorrt")
    spec, _ = lower_precision(path, spec, options, read_material(options), silent)
    return Exported(onnx.load(path), spec, EagerReference(source.model, spec), folder)


def node_named(model: ModelProto, name: str) -> NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def change_weight(model: ModelProto, layer: str, change: Callable[[np.ndarray], None]) -> None:
    """Change a layer's weights in place."""
    name = node_named(model, layer).input[1]
    tensor = next(each for each in model.graph.initializer if each.name == name)
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def to_bfloat16(values: np.ndarray) -> None:
    """Round the weights of the layer to bfloat16."""
    single = values.astype(np.float32).view(np.uint32)
    rounded = (single + 0x7FFF + ((single >> 16) & 1)) & 0xFFFF0000
    values[...] = rounded.view(np.float32).astype(np.float16)


def enlarge_largest(values: np.ndarray) -> None:
    """Enlarge the layer's largest weight by 2**-6 of itself."""
    index = np.unravel_index(np.abs(values).argmax(), values.shape)
    values[index] *= np.float16(1 + 2**-6)


def cast_output(model: ModelProto, layer: str) -> None:
    """Round a layer's output to bfloat16."""
    value = node_named(model, layer).output[0]
    node_named(model, layer).output[0] = f"{value}.exact"
    made = [f"{value}.exact", f"{value}.bf16", value]
    kinds = (TensorProto.BFLOAT16, TensorProto.FLOAT16)
    casts = [
        onnx.helper.make_node("Cast", [made[i]], [made[i + 1]], f"planted.{i}", to=kind)
        for i, kind in enumerate(kinds)
    ]
    insert_after(model.graph, {made[0]: casts})


def clip_input(model: ModelProto, layer: str) -> None:
    """Clip a layer's input at -16 and 16."""
    value = node_named(model, layer).input[0]
    node_named(model, layer).input[0] = f"{value}.clipped"
    bounds = ["planted.low", "planted.high"]
    for name, bound in zip(bounds, (-16, 16), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.float16(bound), name))
    clip = onnx.helper.make_node("Clip", [value, *bounds], [f"{value}.clipped"], "planted.clip")
    insert_after(model.graph, {value: [clip]})


FAULTS = {
    "bfloat16 weights of a pointwise convolution": (change_weight, POINTWISE, to_bfloat16),
    "bfloat16 weights in the pyramid": (change_weight, PYRAMID, to_bfloat16),
    "bfloat16 weights of one level": (change_weight, OF_ONE_LEVEL, to_bfloat16),
    "bfloat16 weights of the last layer": (change_weight, PREDICT, to_bfloat16),
    "a cast to bfloat16": (cast_output, DEPTHWISE),
    "a clip at 16": (clip_input, STEM),
    "one weight of the stem": (change_weight, STEM, enlarge_largest),
    "one weight of the second layer": (change_weight, SECOND_LAYER, enlarge_largest),
}


def test_a_correct_file_passes_and_uses_little_of_the_tolerance(exported: Exported) -> None:
    report = exported.verified(exported.model)
    assert report.passed, report.to_dict()
    for each in report.outputs:
        assert each.worst_level is not None
        assert each.worst_level.used < 0.6


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_the_verification(exported: Exported, fault: str) -> None:
    plant, layer, *how = FAULTS[fault]
    model = copy.deepcopy(exported.model)
    plant(model, layer, *how)
    report = exported.verified(model)
    assert report.status == "failed", [each.levels for each in report.outputs]
    assert any(each.status == "failed" for each in report.outputs)

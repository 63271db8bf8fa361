"""An FP16 overflow is found before delivery, and the tensor is named.

ONNX Runtime computes FP16 nodes in FP32 on a CPU, so no comparison there could show it.
"""

from __future__ import annotations

import dataclasses

import onnx

from effdet_deploy.artifact.modelfile import read_spec
from effdet_deploy.artifact.spec import PrecisionSpec
from effdet_deploy.exporters.lowering import lower_precision
from effdet_deploy.exporters.material import read_material
from effdet_deploy.exporters.options import ExportOptions
from tests.precision.tiny_network import network_spec, tiny_network

OVERFLOWING_GAIN = 3e4
OPTIONS = ExportOptions(precision="fp16", target="tensorrt")
STEM = "backbone.conv_stem.conv"


def lowered(path, gain):
    onnx.save(tiny_network(gain=gain), path)
    spec = dataclasses.replace(network_spec(), precision=PrecisionSpec("fp16", "tensorrt"))
    return lower_precision(path, spec, OPTIONS, read_material(OPTIONS), lambda _: None)


def test_an_overflowing_tensor_is_named_and_stays_float32(tmp_path):
    spec, notes = lowered(tmp_path / "model.onnx", OVERFLOWING_GAIN)
    assert STEM in spec.precision.kept
    assert read_spec(tmp_path / "model.onnx", "onnx").precision.kept == spec.precision.kept
    assert any(f"{STEM} (reaches" in note for note in notes)


def test_no_fp16_tensor_of_the_delivered_graph_overflows(tmp_path):
    spec, _ = lowered(tmp_path / "model.onnx", OVERFLOWING_GAIN)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "model.onnx"))
    kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    assert kinds[STEM] == onnx.TensorProto.FLOAT
    assert onnx.TensorProto.FLOAT16 in kinds.values()
    assert len(spec.precision.kept) < len(inferred.graph.node)


def test_no_tensor_stays_float32_where_every_value_fits_float16(tmp_path):
    spec, notes = lowered(tmp_path / "model.onnx", 1.0)
    assert spec.precision.kept == ()
    assert not any("cannot hold" in note for note in notes)

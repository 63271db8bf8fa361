"""Functions that the tests of all configurations share: they export a small graph and verify it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from effdet_deploy.artifact.int8weights import read_int8_weights
from effdet_deploy.artifact.modelfile import read_spec
from effdet_deploy.artifact.spec import PrecisionSpec
from effdet_deploy.diagnosis.locating import locate
from effdet_deploy.exporters.onnx import write_graph
from effdet_deploy.exporters.source import specification_of
from effdet_deploy.exporters.verifying import verify_onnx
from effdet_deploy.onnxgraph.finishing import write_onnx
from effdet_deploy.onnxgraph.layers import GraphLayers
from effdet_deploy.onnxgraph.running import graph_inputs
from effdet_deploy.precision.fp16 import to_half
from effdet_deploy.precision.int8.quantizer import Quantizer, Recipe
from effdet_deploy.precision.int8.saturation import losses_without_vnni
from effdet_deploy.progress import silent
from effdet_deploy.pytorch.eager_layers import EagerLayers
from effdet_deploy.pytorch.network import get_config
from effdet_deploy.pytorch.reference import EagerReference
from effdet_deploy.runtimes.instructions import saturating_layers
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    from pathlib import Path

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.diagnosis.locating import LayerReport
    from effdet_deploy.exporters import ExportOptions
    from effdet_deploy.exporters.source import Source
    from effdet_deploy.parity.verdict import ParityReport
    from effdet_deploy.pytorch.network import EfficientDet

POOLED_DETECTIONS = 1000
PICTURES = 12
FP16_PICTURES = 2
FP16_USED = 0.9
"""How large the error of a pyramid level may be, as a share of its tolerance.

ONNX Runtime's rounding takes about half."""
SOUND_DB = 80.0
"""The least signal-to-noise ratio of a layer that float32 rounding leaves between ONNX Runtime and
PyTorch."""


def smallest_side(name: str) -> int:
    return int(2 ** get_config(name).max_level)


def export_graph(source: Source, options: ExportOptions, folder: Path) -> tuple[Path, DetectorSpec]:
    """Write an FP32 graph into a new ``folder``; every convolution is named by its module."""
    folder.mkdir()
    path = folder / "model.onnx"
    # An export chooses 1000 candidates if its pictures need no more.
    spec = specification_of(source, replace(options, candidates=1000), None)
    spec, notes = write_graph(source.model, spec, options.opset, path, silent)
    assert not notes
    nodes = onnx.load(path).graph.node
    # WebGPU in onnxruntime-web refuses ceil_mode.
    assert not any(each.name == "ceil_mode" and each.i for node in nodes for each in node.attribute)
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert all(re.match(r"(backbone|fpn|class_net|box_net)\.", node.name) for node in convolutions)
    return path, spec


def verified(path: Path, spec: DetectorSpec, source: Source, count: int = PICTURES) -> ParityReport:
    """Compare the graph with eager PyTorch on ``count`` pictures."""
    pictures = structured_pictures(count, spec.input.height, spec.input.width, seed=11)
    return verify_onnx(path, spec, EagerReference(source.model, spec), list(pictures))


def assert_passed(report: ParityReport) -> None:
    assert report.passed, report.to_dict()
    assert report.detections is not None
    assert report.detections.reference_count >= POOLED_DETECTIONS


def assert_layers_agree(path: Path, network: EfficientDet) -> LayerReport:
    """Compare the layers of a sound graph with eager PyTorch: none may differ or be left out."""
    graph = GraphLayers(path)
    eager = EagerLayers(network, graph.spec.input, graph.layers)
    size = graph.spec.input.height, graph.spec.input.width
    pictures = list(structured_pictures(1, *size, seed=11))
    report = locate(graph.layers, graph, eager, pictures, SOUND_DB)
    assert report.first is None, [(each.name, each.snr_db) for each in report.worst]
    assert report.unmatched == 0
    return report


def assert_fp16_costs_its_own(path: Path, spec: DetectorSpec, source: Source) -> None:
    """Write a graph in FP16 for each runtime of a CPU; both must use little of their tolerance."""
    model = onnx.load(path)
    to_half(model)
    half = path.with_name("fp16.onnx")
    for target in ("onnxruntime", "openvino"):
        written = write_onnx(
            model, dataclasses.replace(spec, precision=PrecisionSpec("fp16", target)), half
        )
        report = verified(half, written, source, FP16_PICTURES)
        assert report.passed, report.to_dict()
        for each in report.outputs:
            assert each.worst_level is not None
            assert each.worst_level.used < FP16_USED


def assert_int8_is_portable(path: Path, folder: Path) -> None:
    """Make a graph INT8 for each runtime of a CPU; no sum may depend on the instruction set."""
    model, spec = onnx.load(path), read_spec(path, "onnx")
    pictures = structured_pictures(2, spec.input.height, spec.input.width, seed=11)
    batches = list(graph_inputs(pictures, spec))
    for target in ("openvino", "onnxruntime"):
        quantizer = Quantizer(model, batches, target, Recipe(), folder / "cache")
        lowered = quantizer.quantized(quantizer.default())
        onnx.save(lowered, folder / f"{target}.onnx")
        weights = read_int8_weights(folder / f"{target}.onnx")
        assert weights.keys() == set(quantizer.default())
        assert saturating_layers(folder / f"{target}.onnx") == {}
        assert losses_without_vnni(lowered, batches) == []

"""``compare --bisect`` from the command line, on files with a planted fault."""

from __future__ import annotations

import dataclasses
import json

import onnx
import pytest
from onnx import numpy_helper

from effdet_deploy.artifact.spec import METADATA_KEY, PrecisionSpec
from effdet_deploy.cli import main
from effdet_deploy.onnxgraph.running import graph_inputs
from effdet_deploy.precision.fp16 import to_half
from effdet_deploy.precision.int8.quantizer import Quantizer, Recipe
from effdet_deploy.synthetic import structured_pictures
from tests.precision.tiny_network import SIDE, network_spec, tiny_network

FAILED = 3
CLIPPED = "fpn.cell.0.coarse.conv_pw"
# The planted fault must stand out from the noise of many other layers.
CLIP = 1000.0
OVERFLOWING_GAIN = 3e4


def write(path, model, kind="fp32"):
    spec = dataclasses.replace(network_spec(), precision=PrecisionSpec(kind))
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, path)
    return path


@pytest.fixture
def exact(tmp_path):
    return write(tmp_path / "exact.onnx", tiny_network())


@pytest.fixture
def clipped(tmp_path):
    batches = list(graph_inputs(structured_pictures(2, SIDE, SIDE, 5), network_spec()))
    quantizer = Quantizer(tiny_network(), batches, "openvino", Recipe(), tmp_path / "cache")
    model = quantizer.quantized(quantizer.default())
    node = next(each for each in model.graph.node if each.name == CLIPPED)
    name = f"{node.input[0].removesuffix('.dequantize')}.scale"
    scale = next(each for each in model.graph.initializer if each.name == name)
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) / CLIP, name))
    return write(tmp_path / "clipped.onnx", model, "int8")


def refused(capsys, *arguments):
    code = main(["compare", *map(str, arguments)])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return code, said


def test_a_clipped_range_is_named_in_the_table_and_in_json(clipped, exact, tmp_path, capsys):
    target = tmp_path / "result.json"
    arguments = [clipped, "--reference", exact, "--bisect", "int8", "--json", target]
    assert main(["compare", *map(str, arguments)]) == FAILED
    shown = capsys.readouterr()
    assert "With these 1 of" in shown.out
    assert CLIPPED in shown.out
    assert "bisecting" in shown.err
    (candidate,) = json.loads(target.read_text())["candidates"]
    assert [each["layer"] for each in candidate["bisection"]["layers"]] == [CLIPPED]
    assert candidate["bisection"]["measurements"] <= candidate["bisection"]["bound"]


def test_an_fp16_overflow_is_named_although_onnx_runtime_does_not_show_it(tmp_path, capsys):
    exact = write(tmp_path / "exact.onnx", tiny_network(gain=OVERFLOWING_GAIN))
    half = tiny_network(gain=OVERFLOWING_GAIN)
    to_half(half)
    candidate = write(tmp_path / "half.onnx", half, "fp16")
    main(["compare", str(candidate), "--reference", str(exact), "--bisect", "fp16"])
    said = capsys.readouterr().out
    assert "values that are not finite" in said
    assert "backbone.conv_stem" in said


def test_without_bisect_nothing_is_bisected(clipped, exact, tmp_path, capsys):
    target = tmp_path / "result.json"
    main(["compare", str(clipped), "--reference", str(exact), "--json", str(target)])
    assert "bisection" not in json.loads(target.read_text())["candidates"][0]


def test_another_precision_than_the_candidates_is_refused(clipped, exact, capsys):
    code, said = refused(capsys, clipped, "--reference", exact, "--bisect", "fp16")
    assert code == 2
    assert "'clipped.onnx', which should be FP16, is INT8" in said


def test_weights_as_the_reference_are_refused(clipped, capsys):
    code, said = refused(capsys, clipped, "--reference", "best.pth", "--bisect", "int8")
    assert code == 2
    assert "--bisect only works on ONNX files, but 'best.pth' is not an ONNX file" in said


def test_an_unknown_precision_is_refused_with_the_known_ones(clipped, exact, capsys):
    code, said = refused(capsys, clipped, "--reference", exact, "--bisect", "int4")
    assert code == 2
    assert "int8" in said


def test_files_that_take_different_inputs_are_refused(exact, tmp_path, capsys):
    spec = dataclasses.replace(
        network_spec(),
        precision=PrecisionSpec("int8"),
        input=dataclasses.replace(network_spec().input, channel_order="bgr"),
    )
    model = tiny_network()
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, tmp_path / "bgr.onnx")
    code, said = refused(capsys, tmp_path / "bgr.onnx", "--reference", exact, "--bisect", "int8")
    assert code == 2
    assert "another input" in said

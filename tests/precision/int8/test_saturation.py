"""Our model of saturating 16-bit sums agrees with the instruction's document and with runtimes."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from effdet_deploy.artifact.spec import METADATA_KEY, PrecisionSpec
from effdet_deploy.onnxgraph.running import graph_inputs
from effdet_deploy.precision.int8.layout import LAYOUTS
from effdet_deploy.precision.int8.quantizer import Quantizer, Recipe
from effdet_deploy.precision.int8.saturation import losses_without_vnni, pairwise_sums
from effdet_deploy.runtimes.instructions import saturating_layers
from effdet_deploy.synthetic import structured_pictures
from tests.precision.tiny_network import SIDE, network_spec, tiny_network

BATCHES = list(graph_inputs(structured_pictures(2, SIDE, SIDE, 5), network_spec()))
PLACES, OUT = 6, 16


def drawn(channels, taps, largest=127, out=OUT):
    random = np.random.default_rng(channels * 100 + taps)
    inputs = random.integers(0, 256, (PLACES, channels, taps)).astype(np.uint8)
    weights = random.integers(-largest, largest + 1, (out, channels, taps)).astype(np.int8)
    return inputs, weights


def one_by_one(inputs, weights):
    """Add up with Python's whole numbers, one pair after the other."""
    sums = np.zeros((len(inputs), len(weights)), np.int64)
    for place, out in np.ndindex(*sums.shape):
        for tap in range(weights.shape[2]):
            for first in range(0, weights.shape[1], 2):
                pair = slice(first, first + 2)
                added = sum(
                    int(a) * int(b)
                    for a, b in zip(inputs[place, pair, tap], weights[out, pair, tap], strict=True)
                )
                sums[place, out] += min(max(added, -(2**15)), 2**15 - 1)
    return sums


@pytest.mark.parametrize(("channels", "taps"), [(1, 9), (2, 1), (7, 1), (16, 1), (16, 9)])
def test_pairs_are_added_as_the_instruction_is_documented(channels, taps):
    inputs, weights = drawn(channels, taps)
    np.testing.assert_array_equal(pairwise_sums(inputs, weights), one_by_one(inputs, weights))


def test_weights_of_seven_bits_never_saturate():
    inputs = np.full((PLACES, 16, 9), 255, np.uint8)
    for weight in (64, -64):
        weights = np.full((OUT, 16, 9), weight, np.int8)
        exact = 255 * weight * 16 * 9
        assert (pairwise_sums(inputs, weights) == exact).all()


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def lower(target, int8_range, **fields):
        network = tiny_network(table=True)
        quantizer = Quantizer(network, BATCHES, target, Recipe(int8_range=int8_range), cache)
        return quantizer.quantized([each.name for each in quantizer.convolutions])

    return lower


@pytest.mark.parametrize("target", ["openvino", "onnxruntime"])
def test_a_portable_graph_loses_nothing_without_vnni(lowered, target, tmp_path):
    model = lowered(target, "portable")
    assert losses_without_vnni(model, BATCHES) == []
    onnx.save(model, tmp_path / "model.onnx")
    assert saturating_layers(tmp_path / "model.onnx") == {}


@pytest.mark.parametrize("target", list(LAYOUTS))
def test_the_loss_of_a_full_range_graph_is_reported_layer_by_layer(lowered, target, tmp_path):
    """No x86 CPU runs the layout for ``tensorrt``; its loss is that of int8 times int8 on a CPU."""
    model = lowered(target, "full")
    tensor = next(
        each
        for each in model.graph.initializer
        if each.name == "backbone.blocks.0.0.conv_pw.conv.weight.int8"
    )
    values = numpy_helper.to_array(tensor).copy()
    values[:, 0::2] = values[:, 1::2] = 127
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    losses = losses_without_vnni(model, BATCHES)
    assert [each.snr_db for each in losses] == sorted(each.snr_db for each in losses)
    by_name = {each.name: each for each in losses}
    assert by_name["backbone.blocks.0.0.conv_pw.conv"].changed > 0
    onnx.save(model, tmp_path / "model.onnx")
    assert by_name.keys() <= saturating_layers(tmp_path / "model.onnx").keys()
    assert not any("conv_dw" in name for name in by_name)


_PROGRAM = """
import sys, numpy, openvino
core = openvino.Core()
model = core.read_model(sys.argv[1])
compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
numpy.save(sys.argv[3], compiled(numpy.load(sys.argv[2]))[0])
"""


def one_convolution(path, weights):
    """Write a convolution of quantized maps; its output is the integer sum, times 2**-8."""
    scale, side = np.float32(2.0**-4), int(weights.shape[2] ** 0.5)
    constants = {
        "scale": scale,
        "zero": np.uint8(0),
        "weight": weights.reshape(*weights.shape[:2], side, side),
        "weight_scale": np.full(len(weights), scale, np.float32),
        "weight_zero": np.zeros(len(weights), np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "d"),
        helper.make_node(
            "DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], "w", axis=0
        ),
        helper.make_node("Conv", ["d", "w"], ["y"], "y", kernel_shape=[side, side]),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [PLACES, None, side, side])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()],
    )
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = weights.shape[1]
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)


@pytest.mark.instructions
@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"),
    reason="not x86: would have shown that OpenVINO on AVX2 adds pairs as pairwise_sums does",
)
@pytest.mark.parametrize(("channels", "taps"), [(16, 1), (32, 9)])
@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE"])
def test_openvino_without_vnni_adds_as_pairwise_sums_does(tmp_path, channels, taps, limit):
    pytest.importorskip("openvino")
    inputs, weights = drawn(channels, taps, out=32)
    one_convolution(tmp_path / "one.onnx", weights)
    side = int(taps**0.5)
    maps = inputs.reshape(PLACES, channels, side, side).astype(np.float32) * np.float32(2.0**-4)
    np.save(tmp_path / "x.npy", maps)
    names = [str(tmp_path / name) for name in ("one.onnx", "x.npy", "y.npy")]
    subprocess.run(
        [sys.executable, "-c", _PROGRAM, *names],
        check=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": limit},
    )
    computed = np.load(tmp_path / "y.npy").reshape(PLACES, -1) * 2**8
    saturated = pairwise_sums(inputs, weights)
    assert (saturated != np.tensordot(inputs.astype(int), weights, ([1, 2], [1, 2]))).any()
    np.testing.assert_array_equal(computed, saturated)


_DETECT = """
import sys, numpy
from effdet_deploy import load
from effdet_deploy.artifact.spec import INPUT_NAME
with load(sys.argv[1], "openvino") as detector:
    heads = detector.runtime.run({INPUT_NAME: numpy.load(sys.argv[2])})
numpy.savez(sys.argv[3], **heads)
"""


@pytest.mark.instructions
def test_a_portable_file_gives_equal_outputs_with_and_without_vnni(lowered, tmp_path):
    pytest.importorskip("openvino")
    model = lowered("openvino", "portable")
    precision = PrecisionSpec("int8", "openvino", int8_range="portable")
    spec = dataclasses.replace(network_spec(), precision=precision)
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", BATCHES[0])
    found = {}
    for limit in ("ALL", "AVX2"):
        target = tmp_path / f"{limit}.npz"
        names = [str(tmp_path / "model.onnx"), str(tmp_path / "x.npy"), str(target)]
        subprocess.run(
            [sys.executable, "-c", _DETECT, *names],
            check=True,
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": limit},
        )
        with np.load(target) as heads:
            found[limit] = dict(heads)
    for name, values in found["ALL"].items():
        noise = ((values - found["AVX2"][name]) ** 2).mean() / values.var()
        # Float kernels round the last bit differently, which may change a value by one level.
        assert noise < 1e-3, name

"""The instructions that an INT8 file needs, tested with imaginary processors."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from effdet_deploy import load
from effdet_deploy.artifact.spec import HEAD_OUTPUTS, INPUT_NAME, METADATA_KEY, PrecisionSpec
from effdet_deploy.errors import DeviceError
from effdet_deploy.onnxgraph.running import graph_inputs, run_graph
from effdet_deploy.precision.int8.quantizer import Quantizer, Recipe
from effdet_deploy.runtimes import instructions
from effdet_deploy.synthetic import structured_pictures
from tests.precision.tiny_network import SIDE, network_spec, tiny_network

BATCHES = list(graph_inputs(structured_pictures(2, SIDE, SIDE, 5), network_spec()))
PLANTED = "backbone.blocks.0.0.conv_pw.conv"
ZEN4 = "sse4_1 avx2 avx512f avx512bw avx512_vnni"
SAPPHIRE = f"{ZEN4} avx_vnni amx_int8"
ALDER = "sse4_1 avx2 avx_vnni"
SKYLAKE_X = "sse4_1 avx2 avx512f avx512bw"
HASWELL = "sse4_1 avx2"


@pytest.fixture(autouse=True)
def x86(monkeypatch):
    monkeypatch.setattr(instructions.platform, "machine", lambda: "x86_64")


def processor(tmp_path, flags):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags}\n\n")
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "limit", "found", "exact"),
    [
        (SAPPHIRE, "", "AMX", True),
        (ZEN4, "", "AVX-512 with VNNI", True),
        (ALDER, "", "AVX2 with VNNI", True),
        (SKYLAKE_X, "", "AVX-512 without VNNI", False),
        (HASWELL, "", "AVX2", False),
        ("sse4_1", "", "SSE4.1", False),
        ("", "", "an unknown instruction set", False),
        (SAPPHIRE, "AVX2", "AVX2", False),
        (SAPPHIRE, "avx2_vnni", "AVX2 with VNNI", True),
        # Zen 4 has VNNI only in AVX-512.
        (ZEN4, "AVX2_VNNI", "AVX2", False),
        (SAPPHIRE, "AVX512_CORE", "AVX-512 without VNNI", False),
        (SAPPHIRE, "AVX512_CORE_VNNI", "AVX-512 with VNNI", True),
        (SAPPHIRE, "ALL", "AMX", True),
        (HASWELL, "AVX512_CORE_AMX", "AVX2", False),
    ],
)
def test_the_best_instruction_set_within_the_limit_is_named(tmp_path, flags, limit, found, exact):
    environment = {"ONEDNN_MAX_CPU_ISA": limit} if limit else {}
    here = instructions.instruction_set("openvino", processor(tmp_path, flags), environment)
    assert here == found
    assert instructions.is_exact(here) is exact


def test_the_environment_variable_of_onednn_does_not_limit_onnx_runtime(tmp_path):
    limits = {"DNNL_MAX_CPU_ISA": "AVX2"}
    folder = processor(tmp_path, ZEN4)
    assert instructions.instruction_set("openvino", folder, limits) == "AVX2"
    assert instructions.instruction_set("onnxruntime", folder, limits) == "AVX-512 with VNNI"


def test_an_unknown_instruction_set_is_not_guessed(tmp_path):
    here = instructions.instruction_set("onnxruntime", tmp_path / "absent")
    assert not instructions.is_exact(here)


def test_arm_adds_in_32_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(instructions.platform, "machine", lambda: "aarch64")
    here = instructions.instruction_set("openvino", tmp_path)
    assert here == "aarch64"
    assert instructions.is_exact(here)


def test_the_bound_of_a_layer_is_that_of_its_worst_two_weights():
    weights = np.array([[[3, -128], [5, 100]], [[-128, 0], [-127, 1]]], np.int8)
    assert instructions.pair_bound(weights) == 255 * 255
    assert instructions.pair_bound(weights[:1]) == 255 * 128
    assert instructions.pair_bound(np.full((4, 8, 9), 64, np.int8)) <= 2**15 - 1
    assert instructions.pair_bound(np.full((4, 8, 1), 65, np.int8)) > 2**15 - 1
    # A single product always fits.
    assert instructions.pair_bound(np.full((4, 1, 9), -128, np.int8)) <= 2**15


def int8_file(path, target, int8_range=None, *, written="full"):
    """Write the tiny network with the full range in one layer, with ``int8_range`` in its spec."""
    recipe = Recipe(int8_range=written)
    quantizer = Quantizer(tiny_network(), BATCHES, target, recipe, path.parent / "cache")
    model = quantizer.quantized(quantizer.default())
    if written == "full":
        tensor = next(t for t in model.graph.initializer if t.name == f"{PLANTED}.weight.int8")
        values = numpy_helper.to_array(tensor).copy()
        values[0, :2] = 127
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    precision = PrecisionSpec("int8", target, int8_range=int8_range)
    spec = dataclasses.replace(network_spec(), precision=precision)
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, path)
    return path


@pytest.fixture
def haswell(monkeypatch):
    monkeypatch.setattr(instructions, "instruction_set", lambda _backend: "AVX2")


@pytest.mark.parametrize("int8_range", ["full", None])
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_full_range_is_refused_without_vnni_and_names_the_layer(
    tmp_path, haswell, runtime, int8_range
):
    """``None`` stands for an old file, whose spec has no field for the range."""
    path = int8_file(tmp_path / "full.onnx", runtime, int8_range)
    with pytest.raises(DeviceError) as raised:
        load(path, runtime)
    assert raised.value.exit_code == 4
    assert f"'{PLANTED}', where two products add up to {2 * 127 * 255}" in raised.value.cause
    assert f"{runtime} can only use AVX2 on this one" in raised.value.cause
    assert "--int8-range portable" in raised.value.remedy
    load(path, runtime, allow_saturation=True).close()


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_full_range_is_loaded_with_vnni(tmp_path, monkeypatch, runtime):
    monkeypatch.setattr(instructions, "instruction_set", lambda _backend: "AVX2 with VNNI")
    load(int8_file(tmp_path / "full.onnx", runtime, "full"), runtime).close()


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_the_portable_range_is_loaded_everywhere(tmp_path, haswell, runtime):
    said = int8_file(tmp_path / "said.onnx", runtime, "portable", written="portable")
    load(said, runtime).close()
    # If the spec does not state the range, the weights are checked; here they cannot saturate.
    silent = int8_file(tmp_path / "silent.onnx", runtime, None, written="portable")
    load(silent, runtime).close()


def test_onnx_runtime_takes_files_for_other_runtimes_and_computes_them_in_float(tmp_path, haswell):
    path = int8_file(tmp_path / "full.onnx", "tensorrt", "full")
    load(path, "onnxruntime").close()
    with pytest.raises(DeviceError, match="needs a processor with VNNI"):
        load(path, "openvino")


@pytest.mark.parametrize("target", ["openvino", "tensorrt"])
def test_files_for_other_runtimes_give_the_graphs_own_results_to_the_last_bit(tmp_path, target):
    path = int8_file(tmp_path / "full.onnx", target, "full")
    with load(path, "onnxruntime") as detector:
        found = detector.runtime.run({INPUT_NAME: BATCHES[0]})
    (written,) = run_graph(onnx.load(path), HEAD_OUTPUTS, BATCHES[:1])
    for name, values in zip(HEAD_OUTPUTS, written, strict=True):
        np.testing.assert_array_equal(found[name], values)

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.onnxgraph.index import float_values, initializers
from effdet_deploy.onnxgraph.running import graph_inputs, scan_ranges
from effdet_deploy.synthetic import structured_pictures
from tests.precision.tiny_network import SIDE, network_spec, tiny_network

BATCHES = list(graph_inputs(structured_pictures(2, SIDE, SIDE, 5), network_spec()))
MIB = 1024**2
# The number of values in the chain, and the MiB that the process may grow: room for a few values.
CHAIN, ALLOWED_MIB = 48, 384
VALUE_MIB = 16


@pytest.fixture(scope="module")
def network():
    return tiny_network()


def test_the_ranges_are_the_extremes_of_the_values_as_a_plain_run_gives_them(network):
    constants = initializers(network.graph)
    names = sorted(name for name in float_values(network) if name not in constants)
    every = onnx.ModelProto()
    every.CopyFrom(network)
    del every.graph.output[:]
    every.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = ort.InferenceSession(every.SerializeToString(), providers=["CPUExecutionProvider"])
    runs = [session.run(names, {INPUT_NAME: batch}) for batch in BATCHES]
    found = scan_ranges(network, names, BATCHES)
    assert list(found) == names
    for index, name in enumerate(names):
        low = min(run[index].min() for run in runs)
        high = max(run[index].max() for run in runs)
        assert (found[name].low, found[name].high) == pytest.approx((low, high), rel=1e-6), name


def test_the_range_of_a_graph_input_is_found_too():
    value = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [2])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [2])
    relu = helper.make_node("Relu", [INPUT_NAME], ["out"])
    graph = helper.make_graph([relu], "relu", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    found = scan_ranges(model, [INPUT_NAME, "out"], [np.array([-3, 2], np.float32)])
    assert (found[INPUT_NAME].low, found[INPUT_NAME].high) == (-3, 2)
    assert (found["out"].low, found["out"].high) == (0, 2)


def test_memory_stays_small_because_extremes_are_taken_during_the_run():
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import grown; print(grown())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < ALLOWED_MIB < CHAIN * VALUE_MIB


def grown():
    """Return the MiB that peak memory grows while the ranges of a chain of values are found."""
    from effdet_deploy.benchmark.machine import peak_memory

    shape = [VALUE_MIB * MIB // 4]
    names = [INPUT_NAME, *(f"value.{index}" for index in range(CHAIN))]
    nodes = [
        helper.make_node("Sin", [before], [after], after)
        for before, after in itertools.pairwise(names)
    ]
    described = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in (names[0], names[-1])
    ]
    graph = helper.make_graph(nodes, "chain", described[:1], described[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    batch = np.ones(shape, np.float32)
    scan_ranges(model, names[1:2], [batch])
    before = peak_memory()
    scan_ranges(model, names[1:], [batch])
    return (peak_memory() - before) // MIB

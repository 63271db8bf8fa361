"""The time and memory that a model takes to start, and the share of the machine that it uses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from effdet_deploy.benchmark.ceilings import Ceilings, measure_ceilings
from effdet_deploy.benchmark.footprint import measure_footprint
from effdet_deploy.benchmark.profile import Work, convolution_work, profile_openvino, stage_shares
from effdet_deploy.errors import ResourceError
from effdet_deploy.precision.int8.convolutions import find_convolutions
from tests.onnx_models import write_tiny
from tests.precision.tiny_network import SIDE, tiny_network

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    onnx.save(tiny_network(), path)
    return path


@pytest.fixture(scope="module")
def feeds():
    return {"images": np.zeros((1, SIDE, SIDE, 3), np.uint8)}


def test_start_up_time_and_memory_are_measured_in_a_process_of_its_own(tmp_path):
    found = measure_footprint(write_tiny(tmp_path / "tiny.onnx"), threads=1)
    parts = (found.import_seconds, found.load_seconds, found.first_seconds)
    assert min(parts) > 0
    assert found.until_first == pytest.approx(sum(parts))
    # Python with numpy and ONNX Runtime holds more than this, whatever the model.
    assert found.peak_memory > 20 * MEGABYTE
    assert found.device_memory == 0


def test_a_model_that_cannot_be_started_has_no_footprint(tmp_path):
    with pytest.raises(ResourceError, match=r"'absent\.onnx' could not be loaded"):
        measure_footprint(tmp_path / "absent.onnx")


def test_the_work_is_the_sum_over_all_convolutions(network, feeds):
    found = convolution_work(network, feeds)
    assert found.macs == sum(each.macs for each in find_convolutions(tiny_network()))
    assert found.traffic > 4 * sum(
        int(np.prod(tensor.dims))
        for tensor in tiny_network().graph.initializer
        if tensor.name.endswith(".weight")
    )


def test_a_matrix_product_counts_as_the_pointwise_convolution_that_it_replaces(tmp_path):
    rows, inner, outer = 6, 5, 4
    weight = onnx.numpy_helper.from_array(np.ones((inner, outer), np.float32), "weight")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gemm", ["images", "weight"], ["y"], "gemm")],
        "product",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [rows, inner])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [rows, outer])],
        initializer=[weight],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "g")
    found = convolution_work(tmp_path / "g", {"images": np.ones((rows, inner), np.float32)})
    assert found.macs == rows * inner * outer


def test_a_share_is_the_work_per_second_divided_by_the_ceiling():
    """A billion multiply-adds (2 GFLOP) in 20 ms are 100 GFLOP/s: half of a ceiling of 200."""
    ceilings = Ceilings(threads=2, flops=200e9, bandwidth=10e9)
    reached = ceilings.reached(Work(macs=1_000_000_000, traffic=50_000_000), 0.02)
    assert reached.arithmetic == pytest.approx(0.5)
    assert reached.bandwidth == pytest.approx(0.25)


def test_ceilings_are_measured_and_name_their_threads():
    ceilings = measure_ceilings(1)
    assert ceilings.flops > 1e8
    assert ceilings.bandwidth > 1e8
    assert "on 1 threads" in str(ceilings)


def test_openvinos_profile_is_split_into_the_parts_of_the_network(network, feeds):
    pytest.importorskip("openvino")
    shares = stage_shares(profile_openvino(network, feeds, threads=1, runs=2))
    assert {"backbone", "fpn", "heads"} <= set(shares)
    assert sum(shares.values()) == pytest.approx(1)


def test_what_lies_in_the_current_directory_is_not_imported(tmp_path, monkeypatch):
    """A file named numpy.py beside the user's models must not run in numpy's place."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('not this one')")
    model = write_tiny(tmp_path / "tiny.onnx")
    monkeypatch.chdir(tmp_path)
    assert measure_footprint(model, threads=1).first_seconds > 0

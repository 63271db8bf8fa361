"""Preflight's findings: their order and words, and the packages and files that it needs."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from effdet_deploy.errors import MissingPackageError, ModelFileError, UnknownNameError
from effdet_deploy.preflight import check_model, require_fit, target_names, target_of
from effdet_deploy.preflight.graph import graph_of, read_graph
from tests.onnx_models import write_tiny
from tests.preflight.graphs import FLOAT, constant, graph, node, top_k, value
from tests.preflight.planted import RTX


def write(path, model):
    path.write_bytes(model.SerializeToString())
    return path


def two_problems():
    return graph(
        [
            node("Det", ["x"], ["first"], name="one"),
            node("Bernoulli", ["x"], ["y"], name="two"),
        ],
        [value("first", shape=(1, 3)), value("y")],
    )


@pytest.mark.parametrize("target", target_names())
def test_every_problem_is_reported_in_the_order_of_the_nodes(target, tmp_path):
    found = check_model(write(tmp_path / "m.onnx", two_problems()), target)
    assert [each.node for each in found] == ["one", "two"]


def test_errors_come_before_warnings(tmp_path):
    model = graph(
        [
            node("Cast", ["x"], ["wide"], name="wide", to=TensorProto.DOUBLE),
            node("Cast", ["wide"], ["narrow"], name="narrow", to=FLOAT),
            node("Det", ["narrow"], ["y"], name="det"),
        ],
        [value("y", shape=(1, 3))],
    )
    found = check_model(write(tmp_path / "m.onnx", model), "tensorrt-11")
    assert [(each.severity, each.node) for each in found] == [("error", "det"), ("warning", "wide")]


def test_a_node_without_a_name_is_called_by_its_operator_and_output(tmp_path):
    model = graph([node("Det", ["x"], ["y"])], [value("y", shape=(1, 3))])
    (found,) = check_model(write(tmp_path / "m.onnx", model), "tensorrt-11")
    assert found.node == "Det → y"


def test_a_tiny_detector_fits_every_target(tmp_path):
    path = write_tiny(tmp_path / "tiny.onnx")
    assert [check_model(path, each) for each in target_names()] == [(), (), ()]


def test_require_fit_names_every_node_in_one_sentence(tmp_path):
    path = write(tmp_path / "m.onnx", two_problems())
    with pytest.raises(ModelFileError) as caught:
        require_fit(path, "tensorrt-11")
    assert "one: " in caught.value.cause
    assert "two: " in caught.value.cause
    assert "\n" not in str(caught.value)


def test_require_fit_says_a_cause_once_for_all_its_nodes(tmp_path):
    names = [f"layer.{index}" for index in range(30)]
    nodes = [node("Det", ["x"], [f"out.{each}"], name=each) for each in names]
    model = graph(nodes, [value(f"out.{each}", shape=(1, 3)) for each in names])
    with pytest.raises(ModelFileError) as caught:
        require_fit(write(tmp_path / "m.onnx", model), "tensorrt-11")
    assert ", ".join(names) + ": " in caught.value.cause
    assert caught.value.cause.count("does not have") == 1


def test_a_file_that_onnx_runtime_optimized_is_recognized(tmp_path):
    made = node("QuickGelu", ["x"], ["y"], name="act", domain="com.microsoft")
    model = graph([made], [value("y")], domains=["com.microsoft"])
    (found,) = check_model(write(tmp_path / "m.onnx", model), "tensorrt-11")
    assert "optimized" in found.remedy
    assert "com.microsoft::QuickGelu" in found.cause


def test_require_fit_gives_back_warnings(tmp_path):
    model = graph([node("Relu", ["x"], ["y"], name="relu")], [value("y")], opset=99)
    (found,) = require_fit(write(tmp_path / "m.onnx", model), "tensorrt-11")
    assert found.rule == "opset"


@pytest.mark.parametrize(
    ("backend", "version", "target"),
    [
        ("tensorrt", "10.16.1.11", "tensorrt-10"),
        ("tensorrt", "11.4.0", "tensorrt-11"),
        ("tensorrt-rtx", "1.7.1", "tensorrt-rtx"),
        ("tensorrt", "12.0", None),
    ],
)
def test_a_release_uses_the_table_of_its_major_version_if_there_is_one(backend, version, target):
    assert target_of(backend, version) == target


def test_an_unknown_target_names_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError) as caught:
        check_model(tmp_path / "m.onnx", "tensorrt-12")
    assert set(caught.value.nearest) == {"tensorrt-10", "tensorrt-11", "tensorrt-rtx"}


def test_without_onnx_that_package_alone_is_named(tmp_path, monkeypatch):
    """An extra would install all of TensorRT, which `check` does not need."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError) as caught:
        check_model(tmp_path / "m.onnx", "tensorrt-10")
    assert "pip install onnx." in caught.value.remedy


def test_without_tensorrt_rtx_the_table_answers_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    (found,) = check_model(write(tmp_path / "m.onnx", top_k(5000)), RTX)
    assert found.rule == "topk"


def test_external_files_outside_the_models_directory_are_refused(tmp_path):
    weights = constant("w", np.ones((1, 3, 8, 8), np.float32))
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../weights.bin")
    model = graph([node("Add", ["x", "w"], ["y"], name="add")], [value("y")], [weights])
    with pytest.raises(ModelFileError, match=r"weights\.bin"):
        check_model(write(tmp_path / "m.onnx", model), "tensorrt-11")


def test_external_weights_need_not_be_read(tmp_path):
    model = graph(
        [node("Add", ["x", "w"], ["y"], name="add")],
        [value("y")],
        [constant("w", np.ones((1, 3, 8, 8), np.float32))],
    )
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    assert check_model(path, "tensorrt-11") == ()


def test_nodes_inside_a_function_of_the_file_are_checked(tmp_path):
    model = graph(
        [node("Own", ["x"], ["y"], name="call", domain="my")], [value("y")], domains=["my"]
    )
    body = [node("Bernoulli", ["a"], ["b"], name="inner")]
    opset = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("my", "Own", ["a"], ["b"], body, opset))
    (found,) = check_model(write(tmp_path / "m.onnx", model), "tensorrt-11")
    assert "Bernoulli" in found.cause


def test_types_come_from_the_nodes_and_not_from_what_the_file_declares(tmp_path):
    model = graph(
        [
            node("Cast", ["x"], ["half"], name="cast", to=TensorProto.FLOAT16),
            node("Relu", ["half"], ["y"], name="relu"),
        ],
        [value("y", FLOAT)],
    )
    model.graph.value_info.append(value("half", FLOAT))
    found = read_graph(write(tmp_path / "m.onnx", model))
    assert found.types["half"] == found.types["y"] == "FLOAT16"
    assert found.declared["y"] == "FLOAT"


def test_a_value_is_known_at_build_when_only_shapes_lead_to_inputs():
    model = graph(
        [
            node("Shape", ["x"], ["shape"], name="shape"),
            node("Add", ["shape", "one"], ["computed"], name="add"),
            node("Identity", ["x"], ["y"], name="id"),
        ],
        [value("y")],
        [constant("one", np.int64(1))],
    )
    found = graph_of(model)
    assert found.is_known_at_build("computed")
    assert not found.is_weight("computed")
    assert found.is_weight("one")
    assert not found.is_known_at_build("y")


@pytest.mark.parametrize(
    ("operator", "inputs"), [("Conv", ["x"]), ("QuantizeLinear", []), ("QuantizeLinear", ["x"])]
)
def test_a_node_without_all_its_inputs_does_not_stop_the_check(operator, inputs, tmp_path):
    damaged = graph(
        [node(operator, inputs, ["y"], name="bad"), node("Det", ["x"], ["z"], name="two")],
        [value("y"), value("z", shape=(1, 3))],
    )
    found = check_model(write(tmp_path / "m.onnx", damaged), RTX)
    assert "two" in {each.node for each in found}

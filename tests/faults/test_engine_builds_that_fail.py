"""Engines that cannot be built, or cannot be built with the options that were given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import onnx
import pytest
from onnx import helper

from effdet_deploy.errors import (
    DeviceError,
    MissingPackageError,
    ModelFileError,
    ResourceError,
)
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.tensorrt import definition as network
from effdet_deploy.exporters.tensorrt.engine import build_engine
from effdet_deploy.runtimes.tensorrt.library import create_log, import_library
from tests.doubles.machine import recorded, with_double
from tests.faults.builds import OLD, PATIENCE_S, RTX, assert_untouched, build_command
from tests.onnx_models import tiny_model


def test_no_tensorrt_names_the_extra(model, engine):
    with pytest.raises(MissingPackageError, match=r"needs the package 'tensorrt'") as caught:
        build_engine(model, engine)

    assert "effdet-deploy[tensorrt]" in caught.value.remedy
    assert_untouched(engine, model)


def test_no_gpu_is_refused_and_never_replaced_by_another_backend(model, engine, use_double):
    use_double("no GPU")

    with pytest.raises(DeviceError, match="finds no usable GPU"):
        build_engine(model, engine)

    assert_untouched(engine, model)


def test_every_parser_error_is_reported_with_its_node(model, engine, use_double):
    use_double("parser errors")

    with pytest.raises(ModelFileError) as caught:
        build_engine(model, engine)

    assert "node 'head.nms' (NonMaxSuppression): unsupported attribute" in caught.value.cause
    assert "node 5 (Foo): No importer registered" in caught.value.cause
    assert engine.read_bytes() == OLD


@pytest.fixture
def custom(tmp_path):
    """A model with two operators that no library knows."""
    model = tiny_model()
    model.opset_import.append(helper.make_opsetid("custom", 1))
    for name in ("Foo", "Bar"):
        model.graph.node.append(
            helper.make_node(name, ["mean"], [name], name=f"the.{name}.node", domain="custom")
        )
    path = tmp_path / "custom.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("options", [BuildOptions(), RTX], ids=["10.x", "RTX"])
def test_what_a_release_lacks_is_refused_with_all_nodes_before_parsing(
    options, custom, engine, use_double
):
    log = use_double("")

    with pytest.raises(ModelFileError, match=r"refuses 'custom\.onnx'") as caught:
        build_engine(custom, engine, options)

    assert all(f"the.{each}.node: " in caught.value.cause for each in ("Foo", "Bar"))
    assert not [each for each in _calls(log) if each[0] == "parse_from_file"]
    assert_untouched(engine, custom, *([log] if log.exists() else []))


def _calls(log):
    return recorded(log) if log.exists() else []


def test_more_candidates_than_topk_takes_are_refused_before_parsing(tmp_path, engine, use_double):
    """One TopK takes at most 3840. Our own files stay below, because they use two TopKs in turn."""
    log = use_double("")
    other = tmp_path / "other.onnx"
    other.write_bytes(_with_topk(3841).SerializeToString())

    with pytest.raises(ModelFileError, match=r"the\.topk: TopK has K 3841") as by_node:
        build_engine(other, engine)

    assert "--candidates 3840" in by_node.value.remedy
    assert not [each for each in _calls(log) if each[0] == "parse_from_file"]
    assert engine.read_bytes() == OLD


def _with_topk(count: int) -> onnx.ModelProto:
    model = tiny_model()
    nodes = [
        helper.make_node("Cast", ["images"], ["many"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Reshape", ["many", "flat"], ["row"]),
        helper.make_node("TopK", ["row", "count_of_topk"], ["best", "where"], name="the.topk"),
    ]
    model.graph.node.extend(nodes)
    for name, values in (("flat", [1, -1]), ("count_of_topk", [count])):
        tensor = helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values)
        model.graph.initializer.append(tensor)
    return model


def test_a_build_without_onnx_names_that_package(model, engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)

    with pytest.raises(MissingPackageError, match="'onnx'") as caught:
        build_engine(model, engine, RTX)

    assert "pip install onnx." in caught.value.remedy
    assert_untouched(engine, model)


def test_nvidias_own_parser_names_the_node(custom):
    trt = import_library("tensorrt-rtx")
    log = create_log(trt)
    builder = network.create_builder(trt, log)

    with pytest.raises(network.BuildFailedError) as caught:
        network.parse(trt, builder, log, str(custom))

    assert caught.value.stage == "parse"
    assert any("(Foo)" in each for each in caught.value.messages)


def test_a_builder_that_returns_none_is_an_error_with_tensorrts_reason(model, engine, use_double):
    log = use_double("returns None")

    with pytest.raises(ModelFileError, match=r"could not build.*implementation for node stem"):
        build_engine(model, engine)

    assert len([each for each in recorded(log) if each[0] == "build_serialized_network"]) == 1
    assert_untouched(engine, model, log)


def test_nvidias_own_builder_returns_none(tmp_path):
    """TensorRT-RTX parses NonMaxSuppression and cannot build it."""
    path = tmp_path / "nms.onnx"
    path.write_bytes(_with_onnx_nms().SerializeToString())
    trt = import_library("tensorrt-rtx")
    log = create_log(trt)
    builder = network.create_builder(trt, log)
    parsed = network.parse(trt, builder, log, str(path))
    config = network.configure(trt, builder, RTX)

    with pytest.raises(network.BuildFailedError) as caught:
        network.build(builder, parsed, config, log)

    assert caught.value.stage == "build"
    assert caught.value.messages


def _with_onnx_nms() -> onnx.ModelProto:
    """The tiny detector with a NonMaxSuppression whose result reaches an output."""
    model = tiny_model()
    graph = model.graph
    (count,) = (node for node in graph.node if node.output[0] == "count_float")
    count.output[0] = "plain_count"
    graph.node.extend(
        [
            helper.make_node("Unsqueeze", ["detection_scores", "last"], ["scores3"]),
            helper.make_node(
                "NonMaxSuppression", ["detection_boxes", "scores3", "most"], ["kept"], name="nms"
            ),
            helper.make_node("Shape", ["kept"], ["kept_shape"]),
            helper.make_node("Cast", ["kept_shape"], ["kept_float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["kept_float"], ["kept_count"], keepdims=0),
            helper.make_node("Add", ["plain_count", "kept_count"], ["count_float"]),
        ]
    )
    graph.initializer.append(helper.make_tensor("most", onnx.TensorProto.INT64, [1], [4]))
    final = next(node for node in graph.node if node.output[0] == "num_detections")
    graph.node.remove(final)
    graph.node.append(final)
    return model


def test_out_of_memory_is_an_error_and_no_smaller_build_is_tried(model, engine, use_double):
    log = use_double("out of memory")

    with pytest.raises(ResourceError, match="The memory ran out while TensorRT built") as caught:
        build_engine(model, engine)

    assert "--workspace" in caught.value.remedy
    assert len([each for each in recorded(log) if each[0] == "build_serialized_network"]) == 1


def test_nvidias_own_builder_runs_out_of_memory(model, engine):
    """A workspace of a hundred bytes is too small for any network."""
    options = BuildOptions(backend="tensorrt-rtx", workspace=1e-7)

    with pytest.raises(ResourceError, match=r"TensorRT-RTX built .*: OutOfMemory \(Requested"):
        build_engine(model, engine, options)

    assert_untouched(engine, model)


@pytest.mark.parametrize(
    ("scenario", "error", "name"),
    [("killed", ResourceError, "SIGKILL"), ("crash", ModelFileError, "SIGSEGV")],
)
def test_the_signal_that_ended_the_builder_is_named(
    scenario, error, name, model, engine, use_double
):
    log = use_double(scenario)

    with pytest.raises(error, match=name):
        build_engine(model, engine)

    assert_untouched(engine, model, log)


def test_ctrl_c_stops_a_build_through_its_progress_monitor(model, engine, tmp_path):
    log = tmp_path / "calls.jsonl"
    process = _endless_build(model, engine, log)

    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130
    assert ["stopped by the monitor"] in recorded(log)
    assert_untouched(engine, model, log)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_end_a_build_as_ctrl_c_does(model, engine, tmp_path, number):
    log = tmp_path / "calls.jsonl"
    process = _endless_build(model, engine, log)

    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130
    assert "Interrupted." in said.decode()
    assert_untouched(engine, model, log)


def _endless_build(model, engine, log):
    """Start a build that only a signal ends, and wait until it is under way."""
    process = subprocess.Popen(
        build_command(model, engine),
        env=os.environ | with_double("endless", log=log),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    _wait_for(log, "started")
    return process


def _wait_for(log, call):
    """Wait until the builder has recorded ``call``; its imports take long on a busy machine."""
    deadline = time.monotonic() + PATIENCE_S
    while not (log.is_file() and [call] in recorded(log)):
        if time.monotonic() > deadline:
            pytest.fail(f"the builder never recorded '{call}'")
        threading.Event().wait(0.05)


def test_the_builder_stops_when_its_parent_has_died(model, engine, tmp_path):
    log = tmp_path / "calls.jsonl"
    process = subprocess.Popen(
        build_command(model, engine), env=os.environ | with_double("endless", log=log)
    )
    _wait_for(log, "started")

    process.kill()
    process.wait()

    _wait_for(log, "stopped by the monitor")
    assert engine.read_bytes() == OLD

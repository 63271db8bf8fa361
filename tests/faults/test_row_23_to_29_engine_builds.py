"""Rows 2, 3, 12 and 23 to 29: engines that cannot be built, or not as asked."""

from __future__ import annotations

import json
import os
import resource
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
    EffdetDeployWarning,
    MissingPackageError,
    ModelFileError,
    ResourceError,
    UsageError,
)
from effdet_deploy.exporters.tensorrt import network
from effdet_deploy.exporters.tensorrt.engine import build_engine
from effdet_deploy.exporters.tensorrt.options import BuildOptions
from effdet_deploy.exporters.tensorrt.timing_cache import Origin
from effdet_deploy.files import sha256_bytes, sha256_file
from effdet_deploy.runtimes.modelfile import read_sidecar
from effdet_deploy.runtimes.trt_library import create_log, import_library
from effdet_deploy.spec import BatchSpec
from tests.doubles.machine import recorded, with_double
from tests.onnx_models import detector_spec, tiny_model, write_tiny

RTX = BuildOptions(backend="tensorrt-rtx")
OLD = b"an engine of yesterday"
PATIENCE_S = 250


@pytest.fixture
def model(tmp_path):
    return write_tiny(tmp_path / "tiny.onnx")


@pytest.fixture
def engine(tmp_path):
    """An engine that stands where the new one shall go."""
    path = tmp_path / "tiny.engine"
    path.write_bytes(OLD)
    return path


@pytest.fixture
def use_double(monkeypatch, tmp_path):
    def use(scenario: str, version: str = "10.16.1.11"):
        log = tmp_path / "calls.jsonl"
        for name, value in with_double(scenario, version=version, log=log).items():
            monkeypatch.setenv(name, value)
        return log

    return use


def assert_untouched(engine, *others):
    """The old engine is whole, and nothing else was left beside it."""
    assert engine.read_bytes() == OLD
    names = {each.name for each in engine.parent.iterdir()}
    assert names == {engine.name, *(each.name for each in others)}


def test_row_3_no_tensorrt_names_the_extra(model, engine):
    with pytest.raises(MissingPackageError, match=r"needs the package 'tensorrt'") as caught:
        build_engine(model, engine)

    assert "effdet-deploy[tensorrt]" in caught.value.remedy
    assert_untouched(engine, model)


def test_row_2_no_gpu_is_refused_and_never_replaced_by_another_backend(model, engine, use_double):
    use_double("no GPU")

    with pytest.raises(DeviceError, match="finds no usable GPU"):
        build_engine(model, engine)

    assert_untouched(engine, model)


def test_row_23_every_parser_error_is_reported_with_its_node(model, engine, use_double):
    use_double("parser errors")

    with pytest.raises(ModelFileError) as caught:
        build_engine(model, engine)

    assert "node 'head.nms' (NonMaxSuppression): unsupported attribute" in caught.value.cause
    assert "node 5 (Foo): No importer registered" in caught.value.cause
    assert engine.read_bytes() == OLD


@pytest.fixture
def custom(tmp_path):
    """A model with two operators that nobody has."""
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
def test_row_23_what_a_release_lacks_is_refused_with_all_nodes_before_parsing(
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


def test_row_12_more_candidates_than_topk_takes_are_refused_before_parsing(
    tmp_path, engine, use_double
):
    """Both by what the spec says, and by the node where the spec says less than the graph has."""
    log = use_double("")
    honest = write_tiny(tmp_path / "honest.onnx", detector_spec(candidates=3841))
    other = tmp_path / "other.onnx"
    other.write_bytes(_with_topk(3841).SerializeToString())

    with pytest.raises(UsageError, match="at most 3840 candidates") as by_spec:
        build_engine(honest, engine)
    with pytest.raises(ModelFileError, match=r"the\.topk: TopK has K 3841") as by_node:
        build_engine(other, engine)

    assert by_spec.value.exit_code == 2
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


def test_row_3_a_build_without_onnx_names_the_extra(model, engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)

    with pytest.raises(MissingPackageError, match="'onnx'") as caught:
        build_engine(model, engine, RTX)

    assert "effdet-deploy[tensorrt-rtx]" in caught.value.remedy
    assert_untouched(engine, model)


def test_row_23_nvidias_own_parser_names_the_node(custom):
    trt = import_library("tensorrt-rtx")
    log = create_log(trt)
    builder = network.create_builder(trt, log)

    with pytest.raises(network.BuildFailedError) as caught:
        network.parse(trt, builder, log, str(custom))

    assert caught.value.stage == "parse"
    assert any("(Foo)" in each for each in caught.value.messages)


def test_row_24_none_is_a_build_error_with_tensorrts_reason(model, engine, use_double):
    log = use_double("returns None")

    with pytest.raises(ModelFileError, match=r"could not build.*implementation for node stem"):
        build_engine(model, engine)

    assert len([each for each in recorded(log) if each[0] == "build_serialized_network"]) == 1
    assert_untouched(engine, model, log)


def test_row_24_nvidias_own_builder_returns_none(tmp_path):
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


def test_row_24_out_of_memory_is_said_and_never_tried_smaller(model, engine, use_double):
    log = use_double("out of memory")

    with pytest.raises(ResourceError, match="The memory ran out while TensorRT built") as caught:
        build_engine(model, engine)

    assert "--workspace" in caught.value.remedy
    assert len([each for each in recorded(log) if each[0] == "build_serialized_network"]) == 1


def test_row_24_nvidias_own_builder_runs_out_of_memory(model, engine):
    """A workspace of a hundred bytes is too small for any network."""
    options = BuildOptions(backend="tensorrt-rtx", workspace=1e-7)

    with pytest.raises(ResourceError, match=r"TensorRT-RTX built .*: OutOfMemory \(Requested"):
        build_engine(model, engine, options)

    assert_untouched(engine, model)


@pytest.mark.parametrize(
    ("scenario", "error", "name"),
    [("killed", ResourceError, "SIGKILL"), ("crash", ModelFileError, "SIGSEGV")],
)
def test_row_25_the_signal_that_ended_the_builder_is_named(
    scenario, error, name, model, engine, use_double
):
    log = use_double(scenario)

    with pytest.raises(error, match=name):
        build_engine(model, engine)

    assert_untouched(engine, model, log)


def test_row_26_ctrl_c_stops_through_the_monitor(model, engine, tmp_path):
    log = tmp_path / "calls.jsonl"
    command = (
        # Whoever runs the tests in the background hands down an ignored SIGINT.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from effdet_deploy.cli import main; "
        f"sys.exit(main(['build', {str(model)!r}, {str(engine)!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command],
        env=os.environ | with_double("endless", log=log),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    _wait_for(log, "started")

    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130
    assert ["stopped by the monitor"] in recorded(log)
    assert_untouched(engine, model, log)


def _wait_for(log, call):
    """Wait for the builder's process, which takes as long as imports take on a busy machine."""
    deadline = time.monotonic() + PATIENCE_S
    while not (log.is_file() and [call] in recorded(log)):
        if time.monotonic() > deadline:
            pytest.fail(f"the builder never recorded '{call}'")
        threading.Event().wait(0.05)


def test_row_26_a_builder_whose_parent_died_stops_too(model, engine, tmp_path):
    log = tmp_path / "calls.jsonl"
    command = (
        # Whoever runs the tests in the background hands down an ignored SIGINT.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from effdet_deploy.cli import main; "
        f"sys.exit(main(['build', {str(model)!r}, {str(engine)!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command], env=os.environ | with_double("endless", log=log)
    )
    _wait_for(log, "started")

    process.kill()
    process.wait()

    _wait_for(log, "stopped by the monitor")
    assert engine.read_bytes() == OLD


def test_row_27_a_full_disk_keeps_the_old_engine(model, engine):
    """A limit on the size of files fails a write as a full disk does."""
    command = (
        # Whoever runs the tests in the background hands down an ignored SIGINT.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from effdet_deploy.cli import main; "
        f"sys.exit(main(['build', {str(model)!r}, {str(engine)!r}, '--backend', 'tensorrt-rtx']))"
    )

    done = subprocess.run(
        [sys.executable, "-c", command],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == ResourceError.exit_code
    assert "disk was full" in done.stderr
    assert_untouched(engine, model)


def test_row_28_two_builds_to_one_target_leave_one_complete_result(tmp_path):
    target = tmp_path / "tiny.engine"
    models = [
        write_tiny(tmp_path / "one.onnx"),
        write_tiny(tmp_path / "many.onnx", detector_spec(batch=BatchSpec(1, 2, 4))),
    ]
    threads = [threading.Thread(target=build_engine, args=(each, target, RTX)) for each in models]

    for each in threads:
        each.start()
    for each in threads:
        each.join()

    sidecar = read_sidecar(target)
    assert sidecar.sha256 == sha256_file(target)
    assert {each.name for each in tmp_path.iterdir()} == {
        "one.onnx",
        "many.onnx",
        "tiny.engine",
        "tiny.engine.json",
    }


@pytest.mark.parametrize(
    ("content", "note", "reason"),
    [
        (b"rubbish", None, "TensorRT cannot read it"),
        (b"bit rot", {"sha256": "0" * 64}, "its content is damaged"),
        (b"old", {"version": "9.0.0"}, "it was measured with tensorrt 9.0.0"),
        (b"old", {"gpu": "NVIDIA T4"}, "on NVIDIA T4"),
        (b"odd", "not JSON", "its note 'timings.bin.json' is damaged"),
    ],
)
def test_row_29_a_bad_timing_cache_is_discarded_and_made_anew(
    content, note, reason, model, tmp_path, use_double
):
    log = use_double("")
    cache = tmp_path / "timings.bin"
    cache.write_bytes(content)
    if note is not None:
        _write_note(cache, note)

    with pytest.warns(EffdetDeployWarning, match=reason):
        build_engine(model, tmp_path / "tiny.engine", BuildOptions(timing_cache=cache))

    assert cache.read_bytes() == b"timings of the double"
    assert ["create_timing_cache", ""] in recorded(log)


def _write_note(cache, note):
    text = note
    if isinstance(note, dict):
        origin = {"backend": "tensorrt", "version": "10.16.1.11", "gpu": ""}
        origin |= {key: value for key, value in note.items() if key in origin}
        digest = note.get("sha256", sha256_bytes(cache.read_bytes()))
        text = json.dumps({"origin": vars(Origin(**origin)), "sha256": digest})
    cache.with_name(cache.name + ".json").write_text(text)


def test_row_29_a_cache_that_tensorrt_refuses_is_discarded(model, tmp_path, use_double):
    use_double("timing cache of another GPU")
    cache = tmp_path / "timings.bin"
    cache.write_bytes(b"timings of the double")

    with pytest.warns(EffdetDeployWarning, match="TensorRT does not accept it"):
        build_engine(model, tmp_path / "tiny.engine", BuildOptions(timing_cache=cache))

"""Engines that TensorRT-RTX really builds, without a GPU, and the calls that TensorRT gets.

A sidecar is the JSON file beside an engine that describes it.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest

from effdet_deploy.artifact.modelfile import read_sidecar, recognize
from effdet_deploy.artifact.spec import BatchSpec, PrecisionSpec
from effdet_deploy.errors import (
    DeviceError,
    EffdetDeployWarning,
    ImageError,
    MissingPackageError,
    ModelFileError,
    UsageError,
)
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.tensorrt import engine as building
from effdet_deploy.exporters.tensorrt.build_errors import crash_error
from effdet_deploy.exporters.tensorrt.engine import build_engine
from effdet_deploy.exporters.tensorrt.messages import Request
from effdet_deploy.exporters.tensorrt.process import require_builder
from effdet_deploy.files import sha256_file
from tests.doubles.machine import recorded, with_double, with_driver
from tests.onnx_models import detector_spec, tiny_model, write_tiny

RTX = BuildOptions(backend="tensorrt-rtx")


@pytest.fixture
def model(tmp_path):
    return write_tiny(tmp_path / "tiny.onnx")


@pytest.fixture
def use_double(monkeypatch, tmp_path):
    """Return a function that puts the double in TensorRT's place and returns its log of calls."""

    def use(scenario: str = "", version: str = "10.16.1.11", gpu: bool = False):
        log = tmp_path / "calls.jsonl"
        variables = with_double(scenario, version=version, log=log)
        for name, value in (variables | (with_driver(tmp_path) if gpu else {})).items():
            monkeypatch.setenv(name, value)
        return log

    return use


@pytest.fixture
def ranged_model(tmp_path):
    return write_tiny(tmp_path / "ranged.onnx", detector_spec(batch=BatchSpec(1, 2, 4)))


def test_rtx_builds_a_plan_without_additions_and_a_sidecar(model, tmp_path):
    stages = []

    artifact = build_engine(model, tmp_path / "tiny.engine", RTX, stages.append)

    sidecar = read_sidecar(artifact.path)
    assert recognize(artifact.path) == "tensorrt"
    assert artifact.path.read_bytes()[:4] == b"vtrt"
    assert sidecar.sha256 == sha256_file(artifact.path)
    assert sidecar.spec.engine.backend == "tensorrt-rtx"
    assert sidecar.spec.engine.version
    assert any(stage.startswith("building the engine: ") for stage in stages)


def test_rtx_builds_a_ranged_batch(ranged_model, tmp_path):
    artifact = build_engine(ranged_model, tmp_path / "ranged.engine", RTX)

    assert artifact.spec.batch == BatchSpec(1, 2, 4)


def test_the_sidecar_of_an_engine_that_was_not_run_says_so(model, tmp_path):
    digest = sha256_file(model)
    record = {"sha256": digest, "spec": None, "verification": {"status": "passed"}}
    model.with_name("tiny.onnx.json").write_text(json.dumps(record))

    artifact = build_engine(model, tmp_path / "tiny.engine", RTX)

    document = json.loads(artifact.sidecar.read_text())
    assert document["verified"] == "onnx"
    assert document["verification"] == {"status": "passed"}
    assert document["onnx"] == {"sha256": digest, "verification": {"status": "passed"}}
    assert artifact.notes[0].startswith("the ONNX file was compared; the engine was built")


def test_an_onnx_file_that_changes_during_the_build_is_refused(model, tmp_path, monkeypatch):
    run_builder = building.run_builder

    def building_while_it_changes(request, progress):
        built = run_builder(request, progress)
        model.write_bytes(model.read_bytes() + b"\n")
        return built

    monkeypatch.setattr(building, "run_builder", building_while_it_changes)
    with pytest.raises(ModelFileError, match="was changed while"):
        build_engine(model, tmp_path / "tiny.engine", RTX)
    assert not list(tmp_path.glob("*.engine*"))


def test_the_verification_of_another_onnx_file_does_not_count(model, tmp_path):
    record = {"sha256": "0" * 64, "spec": None, "verification": {"status": "passed"}}
    model.with_name("tiny.onnx.json").write_text(json.dumps(record))

    artifact = build_engine(model, tmp_path / "tiny.engine", RTX)

    assert json.loads(artifact.sidecar.read_text())["verified"] == "nothing"


@pytest.mark.parametrize(("version", "flags"), [("10.16.1.11", "2"), ("11.4.0.106", "1")])
def test_networks_are_strongly_typed_in_every_release(version, flags, model, tmp_path, use_double):
    """Otherwise TensorRT would choose the precision of layers by itself."""
    log = use_double(version=version)

    build_engine(model, tmp_path / "tiny.engine")

    assert ["create_network", flags] in recorded(log)


def test_plugins_are_registered_before_the_parser_looks_for_them(model, tmp_path, use_double):
    log = use_double()

    build_engine(model, tmp_path / "tiny.engine")

    names = [each[0] for each in recorded(log)]
    assert names.index("init_libnvinfer_plugins") < names.index("parse_from_file")


def test_a_release_without_a_table_is_left_to_its_parser(model, tmp_path, use_double):
    """Preflight knows nothing of a release that came later, and must not stop its build."""
    log = use_double(version="12.0.1")

    build_engine(model, tmp_path / "tiny.engine")

    assert any(each[0] == "parse_from_file" for each in recorded(log))


def test_an_ir_version_beyond_the_release_is_warned_of(tmp_path, use_double):
    use_double()
    onnx_model = tiny_model()
    onnx_model.ir_version = 99
    path = tmp_path / "new.onnx"
    path.write_bytes(onnx_model.SerializeToString())

    with pytest.warns(EffdetDeployWarning, match="IR version 99"):
        build_engine(path, tmp_path / "tiny.engine")


def test_tf32_is_off_unless_asked(model, tmp_path, use_double):
    """TensorRT turns TF32 on by itself, which rounds FP32 to ten bits."""
    log = use_double()

    build_engine(model, tmp_path / "exact.engine")
    assert ["clear_flag", "TF32"] in recorded(log)
    log.unlink()
    artifact = build_engine(model, tmp_path / "fast.engine", BuildOptions(tf32=True))

    assert ["set_flag", "TF32"] in recorded(log)
    assert artifact.spec.engine.traits == ("tf32",)


def test_options_reach_the_builder(model, tmp_path, use_double):
    log = use_double()
    options = BuildOptions(
        workspace=0.5,
        opt_level=4,
        hardware_compatible="ampere+",
        version_compatible=True,
        refit=True,
    )

    build_engine(model, tmp_path / "tiny.engine", options)

    calls = recorded(log)
    assert ["set_memory_pool_limit", "WORKSPACE", str(2**29)] in calls
    assert ["config", "builder_optimization_level", "4"] in calls
    assert [
        "config",
        "hardware_compatibility_level",
        "HardwareCompatibilityLevel.AMPERE_PLUS",
    ] in calls
    assert {"REFIT", "VERSION_COMPATIBLE"} <= {each[1] for each in calls if each[0] == "set_flag"}


def test_the_profile_spans_the_batch_range(ranged_model, tmp_path, use_double):
    log = use_double()

    build_engine(ranged_model, tmp_path / "tiny.engine", batch=BatchSpec(2, 3, 4))

    shapes = [str((size, 128, 128, 3)) for size in (2, 3, 4)]
    assert ["set_shape", "images", *shapes] in recorded(log)


def test_a_static_network_gets_no_profile(model, tmp_path, use_double):
    log = use_double("static")

    build_engine(model, tmp_path / "tiny.engine")

    assert not [each for each in recorded(log) if each[0] == "set_shape"]


def test_a_batch_outside_the_models_range_is_refused(ranged_model, tmp_path):
    with pytest.raises(UsageError, match=r"--batch 8 was asked for.*takes a batch of 1\.\.4"):
        build_engine(ranged_model, tmp_path / "e.engine", RTX, batch=BatchSpec(8, 8, 8))


def test_the_gpu_is_recorded(model, tmp_path, use_double):
    use_double(gpu=True)

    artifact = build_engine(model, tmp_path / "tiny.engine", verify=False)

    assert (artifact.spec.engine.gpu, artifact.spec.engine.compute_capability) == (
        "NVIDIA Double",
        "8.9",
    )


@pytest.mark.parametrize("batch", [BatchSpec(2, 1, 4), BatchSpec(4, 4, 1)])
def test_a_batch_range_out_of_order_is_refused(ranged_model, tmp_path, batch):
    with pytest.raises(UsageError, match="ascending order"):
        build_engine(ranged_model, tmp_path / "e.engine", RTX, batch=batch)


def test_missing_pictures_are_refused_before_the_build(model, tmp_path, use_double):
    log = use_double()

    with pytest.raises(ImageError, match="no picture at"):
        build_engine(model, tmp_path / "tiny.engine", images=tmp_path / "typo")

    assert not log.exists()


def test_a_missing_cuda_package_is_named_before_the_build(model, tmp_path, use_double, monkeypatch):
    log = use_double(gpu=True)
    monkeypatch.setattr(building, "list_gpus", lambda: ("a GPU",))
    monkeypatch.setitem(sys.modules, "cuda", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "pycuda", None)

    with pytest.raises(MissingPackageError, match="cuda-python"):
        build_engine(model, tmp_path / "tiny.engine")

    assert not log.exists()


def test_a_timing_cache_that_cannot_be_written_is_refused_before_the_build(
    model, tmp_path, use_double
):
    log = use_double()
    options = BuildOptions(timing_cache=tmp_path / "absent" / "timings.bin")

    with pytest.raises(UsageError, match="does not exist"):
        build_engine(model, tmp_path / "tiny.engine", options)

    assert not log.exists()


def test_a_crash_at_the_start_names_no_model():
    error = crash_error(Request(BuildOptions()), -11, "")
    assert isinstance(error, DeviceError)
    assert "crashed with SIGSEGV when it was started" in error.cause


def test_the_timing_cache_is_saved_and_used_again(model, tmp_path, use_double):
    log = use_double()
    options = BuildOptions(timing_cache=tmp_path / "timings.bin")

    build_engine(model, tmp_path / "first.engine", options)
    log.unlink()
    build_engine(model, tmp_path / "second.engine", options)

    given = [each[1] for each in recorded(log) if each[0] == "create_timing_cache"]
    assert given == ["timings of the double"]


def test_a_dla_core_that_the_gpu_does_not_have_is_refused(tmp_path, use_double):
    use_double()
    spec = dataclasses.replace(detector_spec(), precision=PrecisionSpec("fp16", "tensorrt"))
    model = write_tiny(tmp_path / "half.onnx", spec)

    with pytest.raises(UsageError, match="DLA core 0 was asked for, but this machine has 0"):
        build_engine(model, tmp_path / "tiny.engine", BuildOptions(dla_core=0))


def test_an_fp32_model_is_refused_for_a_dla(model, tmp_path):
    with pytest.raises(UsageError, match="the ONNX file is FP32 for a batch of 1"):
        build_engine(model, tmp_path / "tiny.engine", BuildOptions(dla_core=0))


def test_rtx_refuses_refitting_without_a_gpu():
    with pytest.raises(DeviceError, match="needs a GPU"):
        require_builder(BuildOptions(backend="tensorrt-rtx", refit=True))


@pytest.mark.parametrize(
    "options",
    [{"timing_cache": "t"}, {"hardware_compatible": "ampere+"}, {"version_compatible": True}],
)
def test_options_that_rtx_would_ignore_are_refused(options):
    with pytest.raises(UsageError, match="TensorRT-RTX has no --"):
        BuildOptions(backend="tensorrt-rtx", **options)


@pytest.mark.parametrize(
    "options", [{"opt_level": 6}, {"workspace": 0.0}, {"dla_core": -1}, {"backend": "tensorflow"}]
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(UsageError):
        BuildOptions(**options)

"""The ONNX Runtime adapter; a spec, in the model's metadata or its sidecar file, describes it."""

from __future__ import annotations

import platform
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from effdet_deploy.artifact.spec import DETECTION_OUTPUTS, BatchSpec, DetectorSpec, PrecisionSpec
from effdet_deploy.errors import (
    DataError,
    DeviceError,
    EffdetDeployWarning,
    ModelFileError,
    UnknownNameError,
    UsageError,
)
from effdet_deploy.files import sha256_file, sidecar_path
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.runtimes.adapter import TimedRuntime
from effdet_deploy.runtimes.onnxruntime import _refused as refused
from effdet_deploy.runtimes.runtime_errors import translated
from tests.onnx_models import SIDE, detector_spec, set_spec, tiny_model, with_input, write_tiny


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)


def test_the_runtime_names_its_inputs_outputs_and_device(tmp_path):
    spec = detector_spec(batch=BatchSpec(1, 2, 4))
    runtime = load_runtime(write_tiny(tmp_path / "tiny.onnx", spec))
    assert [str(each) for each in runtime.inputs] == ["images uint8 [N, 128, 128, 3]"]
    assert tuple(each.name for each in runtime.outputs) == DETECTION_OUTPUTS
    assert [each.shape for each in runtime.outputs] == [
        (None, 1),
        (None, 4, 4),
        (None, 4),
        (None, 4),
    ]
    assert (runtime.backend, runtime.device, runtime.precision) == ("onnxruntime", "cpu", "fp32")
    assert runtime.spec == spec


def test_the_runtime_gives_the_outputs_of_a_plain_session(tmp_path, batch):
    path = write_tiny(tmp_path / "tiny.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = load_runtime(path, threads=1).run({"images": batch})
    for name, expected in zip(DETECTION_OUTPUTS, session.run(None, {"images": batch}), strict=True):
        np.testing.assert_array_equal(outputs[name], expected)


def test_a_timed_run_gives_the_same_outputs_and_copies_nothing_on_the_cpu(tmp_path, batch):
    runtime = load_runtime(write_tiny(tmp_path / "tiny.onnx"))
    assert isinstance(runtime, TimedRuntime)
    timed = runtime.run_timed({"images": batch})
    for name, expected in runtime.run({"images": batch}).items():
        np.testing.assert_array_equal(timed.outputs[name], expected)
    assert timed.compute > 0
    assert (timed.copy_in, timed.copy_out) == (0, 0)


def test_a_run_with_bound_memory_gives_the_same_outputs(tmp_path, batch):
    # CUDA uses this code. It is run on the CPU here, so that all of its calls are tested.
    runtime = load_runtime(write_tiny(tmp_path / "tiny.onnx"))
    timed = runtime._run_bound(runtime._session, {"images": batch})
    for name, expected in runtime.run({"images": batch}).items():
        np.testing.assert_array_equal(timed.outputs[name], expected)
    assert min(timed.copy_in, timed.compute, timed.copy_out) >= 0


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 has no FP16 kernels")
def test_a_half_precision_file_says_that_an_x86_cpu_computes_in_fp32(tmp_path):
    spec = DetectorSpec(
        **{
            **vars(detector_spec()),
            "precision": PrecisionSpec("fp16", "onnxruntime"),
        }
    )
    runtime = load_runtime(write_tiny(tmp_path / "half.onnx", spec))
    assert runtime.spec.precision.kind == "fp16"
    assert runtime.precision == "fp32"


def test_the_metadata_wins_over_the_sidecar(tmp_path):
    path = write_tiny(tmp_path / "tiny.onnx", detector_spec(score_threshold=0.25))
    other = detector_spec(score_threshold=0.75)
    sidecar_path(path).write_text(f'{{"spec": {other.to_json()}, "sha256": ""}}')
    assert load_runtime(path).spec.output.score_threshold == 0.25


def test_a_model_without_metadata_is_read_by_its_sidecar(tmp_path):
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_model(with_spec=False).SerializeToString())
    sidecar_path(path).write_text(f'{{"spec": {detector_spec().to_json()}}}')
    assert load_runtime(path).spec == detector_spec()


def test_a_model_without_any_spec_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_model(with_spec=False).SerializeToString())
    with pytest.raises(ModelFileError, match="no effdet-deploy spec") as caught:
        load_runtime(path)
    assert "effdet-export" in caught.value.remedy


@pytest.mark.parametrize("content", ["no json", "[1, 2]", '{"spec": {"variant": 3}}'])
def test_a_damaged_sidecar_is_reported(tmp_path, content):
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_model(with_spec=False).SerializeToString())
    sidecar_path(path).write_text(content)
    with pytest.raises(DataError):
        load_runtime(path)


def test_a_spec_of_another_graph_is_refused(tmp_path):
    model = tiny_model()
    set_spec(model, with_input(detector_spec(), height=256))
    path = tmp_path / "other.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="does not fit its spec"):
        load_runtime(path)


def test_a_graph_without_an_output_of_its_spec_is_refused(tmp_path):
    model = tiny_model()
    del model.graph.output[1]
    path = tmp_path / "fewer.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="does not fit its spec"):
        load_runtime(path)


def test_further_outputs_of_a_graph_are_given_too(tmp_path, batch):
    model = tiny_model()
    model.graph.output.add().CopyFrom(
        onnx.helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, [1, 1])
    )
    path = tmp_path / "more.onnx"
    path.write_bytes(model.SerializeToString())
    assert load_runtime(path).run({"images": batch})["mean"] == pytest.approx(batch.mean() / 255)


@pytest.mark.parametrize("threads", [0, -1])
def test_a_thread_count_below_one_is_refused(tmp_path, threads):
    with pytest.raises(UsageError, match="threads"):
        load_runtime(write_tiny(tmp_path / "tiny.onnx"), threads=threads)


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cpu:1", "CUDA"])
def test_an_unknown_device_is_refused_with_the_known_ones(tmp_path, device):
    with pytest.raises(UnknownNameError, match="device"):
        load_runtime(write_tiny(tmp_path / "tiny.onnx"), device=device)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_auto_takes_the_cpu_where_a_cuda_provider_cannot_start(tmp_path, monkeypatch):
    path = write_tiny(tmp_path / "tiny.onnx")
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    with pytest.warns(EffdetDeployWarning, match=r"The CPU is used\."):
        assert load_runtime(path, device="auto").device == "cpu"
    with pytest.raises(DeviceError):
        load_runtime(path, device="cuda")


def test_tensorrt_is_a_device_that_is_used_or_refused(tmp_path):
    path = write_tiny(tmp_path / "tiny.onnx")

    with pytest.raises(DeviceError, match="The device 'tensorrt' was asked for"):
        load_runtime(path, device="tensorrt")


def test_tensorrt_keeps_its_engines_beside_the_model(tmp_path, monkeypatch):
    path = write_tiny(tmp_path / "tiny.onnx")
    asked = []
    session = onnxruntime.InferenceSession

    def cpu_session(model, settings, providers, **options):
        asked.extend(providers)
        return session(model, settings, providers=["CPUExecutionProvider"], **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", cpu_session)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"]
    )

    # A session that starts on another provider than the requested one is refused.
    with pytest.raises(DeviceError, match="could not start TensorrtExecutionProvider"):
        load_runtime(path, device="tensorrt:1")

    (name, options), (second, second_options) = asked
    assert (name, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["device_id"] == "1"
    assert second_options["use_tf32"] == "0"
    assert options["trt_engine_cache_path"] == str(
        tmp_path / f"tiny.onnx.{sha256_file(tmp_path / 'tiny.onnx')[:12]}.trt-cache"
    )


@pytest.mark.parametrize("name", ["classroom.onnx", "out of memory.onnx"])
def test_words_in_a_path_are_not_taken_for_the_kind_of_error(name):
    path = Path(name)
    said = f"Load model from {path} failed:This is an invalid model. Type Error"
    with (
        pytest.raises(ModelFileError, match="cannot be loaded by onnxruntime"),
        translated(path, "loaded", (RuntimeError,), partial(refused, path, "CPUExecutionProvider")),
    ):
        raise RuntimeError(said)

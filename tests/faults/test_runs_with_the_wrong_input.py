"""A loaded model is run with wrong inputs, without enough memory, or after it was closed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.detection.detector import load
from effdet_deploy.errors import DeviceError, ModelFileError, ResourceError, TensorError, UsageError
from effdet_deploy.runtimes import load_runtime
from tests.onnx_models import SIDE, detector_spec, tiny_model, with_input, write_tiny


@pytest.fixture
def runtime(tmp_path):
    loaded = load_runtime(
        write_tiny(tmp_path / "model.onnx", detector_spec(batch=BatchSpec(2, 2, 4)))
    )
    yield loaded
    loaded.close()


@pytest.fixture
def float_runtime(tmp_path):
    spec = with_input(detector_spec(), kind="float255")
    loaded = load_runtime(write_tiny(tmp_path / "float.onnx", spec))
    yield loaded
    loaded.close()


def pictures(count: int = 2) -> np.ndarray:
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


WRONG = {
    "dtype": ({"images": pictures().astype(np.float32)}, ["uint8", "float32"]),
    "signed": ({"images": pictures().view(np.int8)}, ["uint8", "int8"]),
    "rank": ({"images": pictures()[0]}, ["[2..4, 128, 128, 3]", "[128, 128, 3]"]),
    "layout": ({"images": pictures().transpose(0, 3, 1, 2)}, ["[2, 3, 128, 128]"]),
    "size": ({"images": pictures()[:, :64]}, ["[2..4, 128, 128, 3]", "[2, 64, 128, 3]"]),
    "batch too small": ({"images": pictures(1)}, ["2..4", "[1, 128, 128, 3]"]),
    "batch too large": ({"images": pictures(5)}, ["2..4", "[5, 128, 128, 3]"]),
    "empty batch": ({"images": pictures()[:0]}, ["2..4", "[0, 128, 128, 3]"]),
    "scalar": ({"images": np.zeros((), np.uint8)}, ["not []"]),
    "name": ({"image": pictures()}, ["['images']", "['image']"]),
    "one input too many": ({"images": pictures(), "x": pictures()}, ["['images', 'x']"]),
    "no inputs": ({}, ["['images']", "[]"]),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("method", ["run", "run_timed"])
def test_wrong_inputs_are_refused_with_what_was_expected_and_what_was_given(runtime, case, method):
    feeds, said = WRONG[case]
    with pytest.raises(TensorError) as caught:
        getattr(runtime, method)(feeds)
    assert caught.value.exit_code == 5
    assert caught.value.remedy
    for words in said:
        assert words in caught.value.cause


@pytest.mark.parametrize("value", [pictures().tolist(), "images", None, 3])
def test_what_is_not_a_numpy_array_is_refused(runtime, value):
    with pytest.raises(TensorError, match=f"numpy array, not {type(value).__name__}"):
        runtime.run({"images": value})


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(float_runtime, poison):
    batch = np.zeros((1, 3, SIDE, SIDE), np.float32)
    float_runtime.run({"images": batch})
    batch[0, 1, 2, 3] = poison
    with pytest.raises(TensorError, match="NaN or infinite"):
        float_runtime.run({"images": batch})


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[..., ::-1],
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x.swapaxes(1, 2),
    ],
)
def test_a_non_contiguous_array_is_copied_first(runtime, view):
    strided = view(pictures())
    assert not strided.flags.c_contiguous
    expected = runtime.run({"images": np.ascontiguousarray(strided)})
    for name, value in runtime.run({"images": strided}).items():
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this onnxruntime has CUDA: would show what one without CUDA answers",
)
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_an_absent_provider_is_refused(tmp_path, device):
    with pytest.raises(DeviceError, match="CPUExecutionProvider") as caught:
        load_runtime(write_tiny(tmp_path / "model.onnx"), device=device)
    assert caught.value.exit_code == 4
    assert "onnxruntime-gpu" in caught.value.remedy


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_is_refused_not_replaced(tmp_path, monkeypatch):
    path = write_tiny(tmp_path / "model.onnx")
    # An onnxruntime-gpu on a machine without a GPU lists CUDA and then gives a session on the CPU.
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    with pytest.raises(DeviceError, match="CUDAExecutionProvider") as caught:
        load_runtime(path, device="cuda")
    assert "doctor" in caught.value.remedy


def test_many_threads_get_what_a_single_thread_gets(tmp_path):
    with load(
        write_tiny(tmp_path / "model.onnx", detector_spec(batch=BatchSpec(1, 1, 2)))
    ) as model:
        batches = [list(pictures(1 + index % 3)) for index in range(40)]
        serial = [model.detect(batch) for batch in batches]
        with ThreadPoolExecutor(8) as pool:
            parallel = list(pool.map(model.detect, batches))
    for one, other in zip(serial, parallel, strict=True):
        for found, again in zip(one, other, strict=True):
            np.testing.assert_array_equal(found.boxes, again.boxes)
            np.testing.assert_array_equal(found.scores, again.scores)


class FailingSession:
    """A session whose every run raises the given error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def run(self, names, feeds):
        raise self.error


OUT_OF_MEMORY = [
    MemoryError(),
    ort_errors.RuntimeException(
        "Failed to allocate memory for requested buffer of size 4398046511104"
    ),
    ort_errors.RuntimeException("Available memory of 0 is smaller than requested bytes of 4096"),
    ort_errors.Fail("CUDA failure 2: out of memory ; GPU=0"),
    ort_errors.RuntimeException("std::bad_alloc"),
    # oneDNN, which OpenVINO uses, says this.
    ort_errors.RuntimeException("could not create a memory object: can't alloc"),
]


def test_an_allocation_that_cannot_be_met_is_a_typed_error(tmp_path):
    model = tiny_model()
    shape = np.array([2**40, 4], np.int64)
    model.graph.initializer.append(onnx.numpy_helper.from_array(shape, "huge"))
    scores = next(each for each in model.graph.node if each.output[0] == "detection_scores")
    scores.output[0] = "few"
    expand = onnx.helper.make_node("Expand", ["few", "huge"], ["detection_scores"])
    model.graph.node.append(expand)
    path = tmp_path / "huge.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ResourceError, match="memory ran out"):
        load_runtime(path).run({"images": pictures(1)})


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_out_of_memory_is_a_typed_error(runtime, monkeypatch, error):
    monkeypatch.setattr(runtime, "_session", FailingSession(error))
    with pytest.raises(ResourceError, match="memory ran out") as caught:
        runtime.run({"images": pictures()})
    assert caught.value.exit_code == 4


def test_any_other_failure_of_the_runtime_is_told_in_one_sentence(runtime, monkeypatch):
    error = ort_errors.Fail("[ONNXRuntimeError] : 1 : FAIL : Non-zero status\ncode returned")
    monkeypatch.setattr(runtime, "_session", FailingSession(error))
    with pytest.raises(ModelFileError, match="Non-zero status code returned") as caught:
        runtime.run({"images": pictures()})
    assert "ONNXRuntimeError" not in str(caught.value)


def test_closing_twice_is_harmless(tmp_path):
    model = load(write_tiny(tmp_path / "model.onnx"))
    model.close()
    model.close()
    with model:
        pass


@pytest.mark.parametrize("method", ["run", "run_timed"])
def test_use_after_close_is_a_typed_error(runtime, method):
    runtime.close()
    with pytest.raises(UsageError, match="is closed"):
        getattr(runtime, method)({"images": pictures()})


def test_a_detector_used_after_close_is_a_typed_error(tmp_path):
    with load(write_tiny(tmp_path / "model.onnx")) as model:
        pass
    with pytest.raises(UsageError, match="is closed"):
        model.detect(pictures(1)[0])

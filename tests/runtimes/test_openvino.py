from __future__ import annotations

import numpy as np
import onnx
import pytest

from effdet_deploy.artifact.spec import DETECTION_OUTPUTS, BatchSpec
from effdet_deploy.errors import (
    DeviceError,
    ModelFileError,
    ResourceError,
    TensorError,
    UsageError,
)
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.runtimes.adapter import TimedRuntime
from tests.onnx_models import SIDE, detector_spec, write_tiny
from tests.precision.tiny_network import tiny_network
from tests.runtimes.threads import scores_on_threads

pytest.importorskip("openvino")

# Two runtimes sum float32 in different orders; BF16 would differ by 0.01.
FLOAT32_ERROR = 1e-4


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)


def opened(path, **options):
    return load_runtime(path, backend="openvino", **options)


def test_the_runtime_names_its_inputs_outputs_and_device(tmp_path):
    spec = detector_spec(batch=BatchSpec(1, 2, 4))
    runtime = opened(write_tiny(tmp_path / "tiny.onnx", spec))
    assert [str(each) for each in runtime.inputs] == ["images uint8 [N, 128, 128, 3]"]
    assert tuple(each.name for each in runtime.outputs) == DETECTION_OUTPUTS
    assert (runtime.backend, runtime.device, runtime.precision) == ("openvino", "cpu", "fp32")


def test_openvino_computes_in_float32_and_not_in_bfloat16(tmp_path, batch):
    path = tmp_path / "network.onnx"
    onnx.save(tiny_network(), path)
    mine = opened(path, threads=1).run({"images": batch})
    for name, expected in load_runtime(path).run({"images": batch}).items():
        np.testing.assert_allclose(mine[name], expected, atol=FLOAT32_ERROR)


def test_outputs_are_not_overwritten_by_the_next_run(tmp_path, batch):
    runtime = opened(write_tiny(tmp_path / "tiny.onnx"))
    first = runtime.run({"images": batch})
    scores = first["detection_scores"].copy()
    runtime.run({"images": np.zeros_like(batch)})
    np.testing.assert_array_equal(first["detection_scores"], scores)


def test_a_timed_run_gives_the_same_outputs(tmp_path, batch):
    runtime = opened(write_tiny(tmp_path / "tiny.onnx"))
    assert isinstance(runtime, TimedRuntime)
    timed = runtime.run_timed({"images": batch})
    for name, expected in runtime.run({"images": batch}).items():
        np.testing.assert_array_equal(timed.outputs[name], expected)


def test_threads_get_the_results_of_their_own_pictures(tmp_path):
    runtime = opened(write_tiny(tmp_path / "tiny.onnx"))
    batches = [np.full((1, SIDE, SIDE, 3), level, np.uint8) for level in range(0, 250, 25)]
    alone = [runtime.run({"images": each})["detection_scores"] for each in batches]
    found = scores_on_threads(runtime.run, batches, times=20)
    for mine, scores in zip(found, alone, strict=True):
        np.testing.assert_array_equal(mine, scores)


def test_a_gpu_is_refused(tmp_path):
    with pytest.raises(DeviceError, match="runs OpenVINO only on the CPU"):
        opened(write_tiny(tmp_path / "tiny.onnx"), device="cuda:0")


def test_an_input_of_another_shape_is_refused(tmp_path, batch):
    with pytest.raises(TensorError, match="must have the shape"):
        opened(write_tiny(tmp_path / "tiny.onnx")).run({"images": batch[:, 1:]})


def test_after_close_it_refuses_to_run(tmp_path, batch):
    runtime = opened(write_tiny(tmp_path / "tiny.onnx"))
    runtime.close()
    runtime.close()
    with pytest.raises(UsageError, match="is closed"):
        runtime.run({"images": batch})


def test_an_operator_that_openvino_lacks_is_a_model_file_error(tmp_path):
    model = onnx.load(write_tiny(tmp_path / "tiny.onnx"))
    model.graph.node[1].op_type = "Unheard"
    onnx.save(model, tmp_path / "tiny.onnx")
    with pytest.raises(ModelFileError, match="Unheard"):
        opened(tmp_path / "tiny.onnx")


@pytest.mark.parametrize(
    "said", ["std::bad_alloc", "could not create a memory object: can't alloc"]
)
def test_too_little_memory_is_a_typed_error(tmp_path, batch, monkeypatch, said):
    class Failing:
        def run(self, _feeds):
            raise RuntimeError(said)

    runtime = opened(write_tiny(tmp_path / "tiny.onnx"))
    monkeypatch.setattr(runtime, "_compiled_for", lambda _batch: Failing())
    with pytest.raises(ResourceError, match="memory ran out") as caught:
        runtime.run({"images": batch})
    assert caught.value.exit_code == 4

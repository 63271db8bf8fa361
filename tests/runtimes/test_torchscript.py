from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from effdet_deploy.artifact.spec import METADATA_KEY, BatchSpec
from effdet_deploy.detection.detector import load
from effdet_deploy.errors import (
    DeviceError,
    ModelFileError,
    ResourceError,
    TensorError,
    UnknownNameError,
    UsageError,
)
from effdet_deploy.runtimes import load_runtime
from tests.onnx_models import BOXES, SIDE, detector_spec, write_tiny

torch = pytest.importorskip("torch")

# The error of a mean over 128x128x3 values that are summed in another order.
SCORE_TOLERANCE = 1e-5


class Tiny(torch.nn.Module):
    """The tiny ONNX detector of tests/onnx_models.py, in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("boxes", torch.from_numpy(BOXES))
        self.register_buffer("weights", torch.tensor([1.0, 0.8, 0.6, 0.4]))
        self.register_buffer("classes", torch.tensor([0, 2, 1, 0], dtype=torch.int32))

    def forward(self, images):
        batch = images.shape[0]
        mean = images.float().mean(dim=[1, 2, 3])[:, None] / 255
        count = torch.full([batch, 1], 4, dtype=torch.int32)
        boxes = self.boxes.expand(batch, 4, 4)
        return count, boxes, mean * self.weights, self.classes.expand(batch, 4)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("torchscript") / "tiny.torchscript"
    spec = detector_spec(batch=BatchSpec(1, 1, 4))
    scripted = torch.jit.script(Tiny().eval())
    torch.jit.save(scripted, str(path), _extra_files={METADATA_KEY: spec.to_json()})
    return path


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)


def test_an_archive_gives_the_outputs_of_the_onnx_model(archive, tmp_path, batch):
    onnx = load_runtime(write_tiny(tmp_path / "tiny.onnx", detector_spec(batch=BatchSpec(1, 1, 4))))
    runtime = load_runtime(archive, device="cpu")
    expected = onnx.run({"images": batch})
    outputs = runtime.run({"images": batch})
    assert runtime.spec == onnx.spec
    assert [each.dtype for each in runtime.outputs] == [each.dtype for each in onnx.outputs]
    assert [each.shape for each in runtime.outputs] == [each.shape for each in onnx.outputs]
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, atol=SCORE_TOLERANCE)
        assert outputs[name].dtype == value.dtype


def test_a_detector_runs_on_it(archive):
    (found,) = load(archive).detect(np.full((SIDE, SIDE, 3), 255, np.uint8))
    np.testing.assert_array_equal(found.boxes, np.clip(BOXES, 0, SIDE))


def test_many_threads_get_what_a_single_thread_gets(archive, batch):
    runtime = load_runtime(archive, device="cpu")
    pictures = [
        np.ascontiguousarray(np.roll(batch, turn, axis=3) // (turn + 1)) for turn in range(12)
    ]
    serial = [runtime.run({"images": each})["detection_scores"] for each in pictures]
    with ThreadPoolExecutor(4) as pool:
        parallel = pool.map(
            lambda each: runtime.run({"images": each})["detection_scores"], pictures
        )
        for one, other in zip(serial, parallel, strict=True):
            np.testing.assert_array_equal(one, other)


def test_inputs_that_do_not_fit_are_refused_before_torch_sees_them(archive, batch):
    runtime = load_runtime(archive, device="cpu")
    with pytest.raises(TensorError, match="uint8"):
        runtime.run({"images": batch.astype(np.float32)})
    with pytest.raises(TensorError, match=r"1\.\.4"):
        runtime.run({"images": np.repeat(batch, 3, axis=0)})


def test_closing_twice_is_harmless_and_use_after_it_is_an_error(archive, batch):
    runtime = load_runtime(archive, device="cpu")
    runtime.close()
    runtime.close()
    with pytest.raises(UsageError, match="closed"):
        runtime.run({"images": batch})


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what a machine without a GPU answers")
def test_a_gpu_that_is_not_there_is_refused(archive):
    with pytest.raises(DeviceError, match="0 CUDA devices"):
        load_runtime(archive, device="cuda")


@pytest.mark.parametrize("device", ["tpu", "cpu:0", "cuda:x"])
def test_an_unknown_device_is_refused(archive, device):
    with pytest.raises(UnknownNameError, match="device"):
        load_runtime(archive, device=device)


def test_an_archive_without_a_spec_is_refused(tmp_path):
    path = tmp_path / "plain.torchscript"
    torch.jit.save(torch.jit.script(Tiny()), str(path))
    with pytest.raises(ModelFileError, match="no effdet-deploy spec"):
        load_runtime(path)


class Failing(torch.nn.Module):
    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def forward(self, images):
        raise RuntimeError(self.message)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
            ResourceError,
        ),
        ("something else", ModelFileError),
    ],
)
def test_torchs_exceptions_are_translated(archive, batch, message, kind, monkeypatch):
    runtime = load_runtime(archive, device="cpu")
    monkeypatch.setattr(runtime, "_module", Failing(message))
    with pytest.raises(kind):
        runtime.run({"images": batch})


def test_an_archive_with_other_outputs_than_its_spec_is_refused(archive, batch, monkeypatch):
    runtime = load_runtime(archive, device="cpu")
    monkeypatch.setattr(runtime, "_module", lambda images: (images,))
    with pytest.raises(ModelFileError, match="1 outputs"):
        runtime.run({"images": batch})


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_a_read_only_picture_is_taken(archive, batch):
    batch.flags.writeable = False
    with contextlib.closing(load_runtime(archive, device="cpu")) as runtime:
        assert runtime.run({"images": batch})

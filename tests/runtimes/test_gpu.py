"""On a real GPU: CUDA's memory, streams and graphs as we use them, and engines built and run.

The tests of CUDA need any CUDA GPU, the others also ONNX Runtime's package for GPUs, TensorRT or
TensorRT-RTX. One command runs all: ``pytest -m gpu tests/runtimes/test_gpu.py``. GPU tests that
need only PyTorch are in ``tests/benchmarks/test_gpu_graphs.py``.
"""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.detection.detector import load
from effdet_deploy.errors import MissingPackageError, ResourceError
from effdet_deploy.exporters import ExportOptions, export
from effdet_deploy.exporters.build_options import BACKENDS, BuildOptions
from effdet_deploy.exporters.tensorrt.engine import build_engine
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.runtimes.gpu import free_memory, list_gpus
from effdet_deploy.runtimes.tensorrt.cuda import open_cuda, require_cuda
from effdet_deploy.runtimes.tensorrt.library import MODULES
from effdet_deploy.synthetic import structured_pictures
from tests.networks import conditioned

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not list_gpus(),
        reason="no GPU: would show that copies, streams, graphs and engines work as expected",
    ),
]
SIZE = 4096
RUNS = 50
SIDE = 128
TAKEN = 1 << 30
# The memory of contexts and pools that libraries allocate when they are first used.
OVERHEAD = 1 << 28


def test_the_driver_says_of_the_gpu_what_pytorch_says():
    torch = pytest.importorskip("torch")
    found = torch.cuda.get_device_properties(0)
    first = list_gpus()[0]
    assert first.name == found.name
    assert first.compute_capability == f"{found.major}.{found.minor}"
    assert len(list_gpus()) == torch.cuda.device_count()


def test_free_memory_falls_by_the_memory_taken():
    torch = pytest.importorskip("torch")
    torch.zeros(1, device="cuda")
    before = free_memory()
    taken = torch.empty(TAKEN, dtype=torch.uint8, device="cuda")
    assert before - free_memory() == pytest.approx(taken.nbytes, abs=OVERHEAD)
    assert free_memory() == pytest.approx(torch.cuda.mem_get_info()[0], abs=OVERHEAD)


@pytest.fixture
def models():
    """The module of tiny ONNX detectors; skips the test if the onnx package is missing."""
    return pytest.importorskip("tests.onnx_models")


def test_onnxruntime_on_cuda_gives_what_the_cpu_gives(models, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs onnxruntime-gpu: would show the CPU's rows, and copies that are timed")
    batch = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    path = models.write_tiny(tmp_path / "tiny.onnx")
    runtime = load_runtime(path, device="cuda")
    assert runtime.device == "cuda:0"
    timed = runtime.run_timed({"images": batch})
    assert timed.copy_in > 0
    for name, expected in load_runtime(path, device="cpu").run({"images": batch}).items():
        np.testing.assert_allclose(timed.outputs[name], expected, rtol=1e-5)


@pytest.fixture
def cuda():
    try:
        require_cuda()
    except MissingPackageError:
        pytest.skip("neither cuda-python nor pycuda: would show that memory and graphs work")
    device = open_cuda(0)
    with device.current():
        yield device


@pytest.fixture
def round_trip(cuda):
    """Two pinned arrays, memory on the device to copy through, and a stream."""
    source, target = (cuda.allocate_pinned(SIZE) for _ in range(2))
    address, stream = cuda.allocate(SIZE), cuda.create_stream()
    yield source, target, address, stream
    cuda.destroy_stream(stream)
    cuda.free(address)
    for each in (source, target):
        cuda.free_pinned(each)


def test_data_copied_to_the_gpu_comes_back_unchanged(cuda, round_trip):
    source, target, address, stream = round_trip
    source[:] = np.arange(SIZE) % 251
    target[:] = 0

    cuda.copy_in(address, source, SIZE, stream)
    cuda.copy_out(target, address, SIZE, stream)
    cuda.synchronize(stream)

    np.testing.assert_array_equal(target, source)


def test_a_recorded_graph_reads_the_memory_at_the_time_of_its_launch(cuda, round_trip):
    if cuda.recorder is None:
        pytest.skip("pycuda records no graphs: cuda-python would show that replays read new data")
    source, target, address, stream = round_trip
    cuda.recorder.begin(stream)
    cuda.copy_in(address, source, SIZE, stream)
    cuda.copy_out(target, address, SIZE, stream)
    graph = cuda.recorder.end(stream)

    for value in (7, 99):
        source[:] = value
        cuda.recorder.launch(graph, stream)
        cuda.synchronize(stream)
        assert (target == value).all()

    cuda.recorder.destroy(graph)


def test_events_measure_the_time_of_the_device(cuda, round_trip):
    source, _, address, stream = round_trip
    first = cuda.record_event(stream)
    cuda.copy_in(address, source, SIZE, stream)
    second = cuda.record_event(stream)
    cuda.synchronize(stream)
    assert 0 < cuda.seconds_between(first, second) < 1
    for each in (first, second):
        cuda.destroy_event(each)


def test_too_much_memory_is_a_typed_error(cuda):
    with pytest.raises(ResourceError, match="ran out of memory"):
        cuda.allocate(2**50)


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    if importlib.util.find_spec(MODULES[request.param]) is None:
        pytest.skip(f"no {request.param}: would show that its engines run and agree with ONNX")
    return request.param


@pytest.mark.parametrize("batch", [BatchSpec(), BatchSpec(1, 2, 4)], ids=str)
def test_an_engine_is_built_run_and_verified(backend, batch, models, tmp_path):
    model = models.write_tiny(tmp_path / "tiny.onnx", models.detector_spec(batch=batch))

    artifact = build_engine(model, tmp_path / "tiny.engine", BuildOptions(backend=backend))

    assert json.loads(artifact.sidecar.read_text())["verified"] == "engine"
    runtime = load_runtime(artifact.path)
    for level in (51, 255, 0, 102):
        pictures = np.full((batch.maximum, SIDE, SIDE, 3), level, np.uint8)
        scores = runtime.run({"images": pictures})["detection_scores"]
        np.testing.assert_allclose(scores[-1], level / 255 * models.WEIGHTS, atol=1e-5)
    runtime.close()


@pytest.mark.parametrize("nms", ["static", "plugin"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_exported_detector_is_built_run_and_verified(
    backend, precision, nms, tmp_path, record_property
):
    """The median compute time is recorded; ``--junit-xml FILE`` writes it to a file."""
    if nms == "plugin" and backend == "tensorrt-rtx":
        pytest.skip("TensorRT-RTX has no plugins")
    pytest.importorskip("onnx")
    options = ExportOptions(precision=precision, nms=nms, build=BuildOptions(backend=backend))

    artifact = export(conditioned("tf_efficientdet_d0"), tmp_path / "d0.engine", options)

    assert json.loads(artifact.sidecar.read_text())["verified"] == "engine"
    assert artifact.report.passed
    with load(artifact.path) as detector:
        feed = {"images": structured_pictures(1, SIDE, SIDE, seed=5)}
        runs = [detector.runtime.run_timed(feed) for _ in range(RUNS)]
    record_property("compute_ms", 1e3 * float(np.median([each.compute for each in runs])))

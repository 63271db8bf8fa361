"""libeffdet runs a TensorRT engine on a GPU and gives the same rows (detections) as Python.

Pictures may be in the GPU's memory. The tests need a CUDA GPU, TensorRT with its headers, and
cuda-python: ``pytest -m gpu tests/native``.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import subprocess
import sys

import numpy as np
import pytest

import effdet_deploy
from tests.native.building import BUILD
from tests.native.models import make_spec, write_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        ctypes.util.find_library("cuda") is None,
        reason="no NVIDIA driver: would show that engines give libeffdet the rows they give Python",
    ),
]
SIDE = 128


@pytest.fixture(scope="module")
def has_tensorrt(testing_library):
    if "NVINFER:PATH=NVINFER-NOTFOUND" in (BUILD / "CMakeCache.txt").read_text(encoding="utf-8"):
        pytest.skip("NvInfer.h is not here: install TensorRT's development package")
    pytest.importorskip("tensorrt")


@pytest.fixture(scope="module", params=[(1, 1), (1, 4)], ids=["fixed", "ranged"])
def engine(request, has_tensorrt, tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    spec = make_spec(SIDE, SIDE, batch=request.param, output={"nms": "static"})
    model = write_model(folder / "tiny.onnx", spec)
    target = folder / "tiny.engine"
    build = "import sys; from effdet_deploy.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", build, "build", str(model), str(target), "--no-verify"]
    subprocess.run(command, check=True)
    return target


def frames(count):
    random = np.random.default_rng(4)
    return [random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(count)]


def as_lists(found):
    return [list(map(list, each.boxes.tolist())) for each in found], [
        each.scores.tolist() for each in found
    ]


def rows_as_lists(found):
    return [[list(row.box) for row in rows] for rows in found], [
        [row.score for row in rows] for rows in found
    ]


def test_an_engine_gives_the_rows_of_python_run_after_run(engine, testing_library, binding):
    pictures = frames(6)
    native = binding.Detector(str(testing_library), str(engine))
    with effdet_deploy.load(engine) as detector:
        expected = as_lists(detector.detect(pictures))
    # The first run is queued, the second is recorded, and the others are played back.
    for _ in range(4):
        assert rows_as_lists(native.detect([binding.view(each) for each in pictures])) == expected
    native.close()


def test_a_frame_in_device_memory_gives_the_same_rows(engine, testing_library, binding):
    runtime = pytest.importorskip("cuda.bindings.runtime")
    (frame,) = frames(1)
    native = binding.Detector(str(testing_library), str(engine))
    expected = native.detect([binding.view(frame)])
    _, address = runtime.cudaMalloc(frame.nbytes)
    kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
    runtime.cudaMemcpy(address, frame.ctypes.data, frame.nbytes, kind)
    on_device = binding.Image(int(address), SIDE, SIDE, 0, binding.FORMATS["rgb"], 1)
    assert native.detect([on_device]) == expected
    native.close()
    runtime.cudaFree(address)

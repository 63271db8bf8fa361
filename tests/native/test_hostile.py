"""Damaged graphs, and many threads, give rows (detections) or an error, and never a crash."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.native.building import onnxruntime_library, openvino_library
from tests.native.models import make_spec, write_model

pytestmark = pytest.mark.native

RUNTIMES = {"onnxruntime": onnxruntime_library, "openvino": openvino_library}
MUTATIONS = 300
BAD_MODEL, NO_MEMORY, RUN_FAILED = 2, 4, 5
THREADS, RUNS = 8, 500


@pytest.fixture
def opened(testing_library, binding, has_onnxruntime):
    def run(path, backend):
        library = str(RUNTIMES[backend]())
        return binding.Detector(str(testing_library), str(path), backend, library, threads=1)

    return run


@pytest.mark.parametrize("backend", RUNTIMES)
def test_mutated_files_are_refused_or_run(opened, binding, tmp_path, backend):
    whole = write_model(tmp_path / "tiny.onnx", make_spec()).read_bytes()
    path = tmp_path / "changed.onnx"
    random = np.random.default_rng(5)
    frame = np.zeros((128, 160, 3), np.uint8)
    outcomes = {"refused": [], "run": []}
    for _ in range(MUTATIONS):
        changed = bytearray(whole)
        for place in random.integers(0, len(whole), random.integers(1, 4)):
            changed[place] = random.integers(0, 256)
        path.write_bytes(changed)
        try:
            native = opened(path, backend)
            native.detect([binding.view(frame)])
            native.close()
            outcomes["run"].append(0)
        except binding.Error as error:
            outcomes["refused"].append(error)
    assert all(outcomes.values())
    assert {each.status for each in outcomes["refused"]} <= {BAD_MODEL, NO_MEMORY, RUN_FAILED}
    assert all(str(each).isprintable() for each in outcomes["refused"])


@pytest.mark.parametrize("backend", RUNTIMES)
def test_eight_threads_of_five_hundred_runs_find_the_same_rows(opened, binding, tmp_path, backend):
    native = opened(write_model(tmp_path / "tiny.onnx", make_spec()), backend)
    random = np.random.default_rng(6)
    frames = [random.integers(0, 256, (60 + 10 * at, 90, 3), dtype=np.uint8) for at in range(4)]
    expected = [native.detect([binding.view(frame)]) for frame in frames]
    wrong = []

    def work(first):
        for index in range(first, first + RUNS):
            rows = native.detect([binding.view(frames[index % 4])])
            wrong.extend([index] if rows != expected[index % 4] else [])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    native.close()
    assert not wrong

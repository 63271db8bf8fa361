"""The TensorRT runtime on test doubles of TensorRT and CUDA: calls, results, release of memory.

A sidecar is the JSON file beside an engine that describes it.
"""

from __future__ import annotations

import numpy as np
import pytest

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.detection.detector import Detector
from effdet_deploy.errors import DeviceError
from effdet_deploy.runtimes import load_runtime
from tests.doubles.cuda import HostCuda, HostRecorder
from tests.doubles.installed import write_engine
from tests.doubles.machine import recorded
from tests.onnx_models import BOXES, CLASSES, SIDE, WEIGHTS

RANGE = BatchSpec(1, 2, 4)


@pytest.fixture
def engine(tmp_path):
    return write_engine(tmp_path / "tiny.engine")


@pytest.fixture
def ranged_engine(tmp_path):
    return write_engine(tmp_path / "ranged.engine", RANGE)


def pictures(*levels: int) -> dict[str, np.ndarray]:
    """Return one evenly gray picture per level."""
    canvas = np.empty((len(levels), SIDE, SIDE, 3), np.uint8)
    canvas[:] = np.array(levels)[:, None, None, None]
    return {"images": canvas}


def test_the_runtime_gives_the_engines_outputs(engine, use_engine_double):
    use_engine_double()

    outputs = load_runtime(engine).run(pictures(51))

    assert outputs["num_detections"].tolist() == [[len(BOXES)]]
    np.testing.assert_allclose(outputs["detection_scores"], 0.2 * WEIGHTS[None], rtol=1e-6)
    np.testing.assert_array_equal(outputs["detection_boxes"], BOXES[None])
    np.testing.assert_array_equal(outputs["detection_classes"], CLASSES[None])
    assert outputs["detection_classes"].dtype == np.int32


def test_plugins_are_registered_before_the_plan_is_read(engine, use_engine_double, tmp_path):
    log = tmp_path / "calls.jsonl"
    use_engine_double(log=log)

    load_runtime(engine)

    names = [each[0] for each in recorded(log)]
    assert names.index("init_libnvinfer_plugins") < names.index("deserialize_cuda_engine")


def test_the_runtime_says_where_it_runs(engine, use_engine_double):
    use_engine_double()

    runtime = load_runtime(engine)

    assert (runtime.backend, runtime.device, runtime.precision) == ("tensorrt", "cuda:0", "fp32")
    assert str(runtime.inputs[0]) == "images uint8 [1, 128, 128, 3]"


def test_a_detector_detects_with_it(engine, use_engine_double):
    use_engine_double()

    with Detector.load(engine) as detector:
        (found,) = detector.detect(np.full((SIDE, SIDE, 3), 255, np.uint8))

    assert found.scores.tolist() == pytest.approx(WEIGHTS.tolist())


def test_every_run_of_a_recorded_graph_reads_its_own_picture(engine, use_engine_double):
    cuda = use_engine_double()
    runtime = load_runtime(engine)

    scores = [runtime.run(pictures(level))["detection_scores"][0, 0] for level in (0, 51, 102, 255)]

    assert scores == pytest.approx([0, 0.2, 0.4, 1.0])
    assert cuda.recorder.launched == 3


def test_a_recorded_graph_asks_tensorrt_only_twice(engine, use_engine_double, tmp_path):
    log = tmp_path / "calls.jsonl"
    use_engine_double(log=log)
    runtime = load_runtime(engine)

    for _ in range(5):
        runtime.run(pictures(51))

    assert len([each for each in recorded(log) if each[0] == "execute_async_v3"]) == 2


def test_without_a_recorder_every_run_is_queued(engine, use_engine_double):
    use_engine_double(cuda=HostCuda(with_recorder=False))
    runtime = load_runtime(engine)

    scores = [runtime.run(pictures(level))["detection_scores"][0, 0] for level in (0, 51, 255)]

    assert scores == pytest.approx([0, 0.2, 1.0])


class FailingRecorder(HostRecorder):
    """A recorder that fails as CUDA does for work whose sizes are known only when it runs."""

    def end(self, stream):
        super().end(stream)
        raise DeviceError("operation failed due to a previous error during capture", "")


def test_an_engine_that_cannot_be_recorded_is_queued(engine, use_engine_double):
    cuda = HostCuda()
    cuda.recorder = FailingRecorder(cuda)
    use_engine_double(cuda=cuda)
    runtime = load_runtime(engine)

    scores = [runtime.run(pictures(level))["detection_scores"][0, 0] for level in (0, 51, 255)]

    assert scores == pytest.approx([0, 0.2, 1.0])
    assert cuda.recorder.launched == 0


def test_a_ranged_batch_takes_every_size_in_any_order(ranged_engine, use_engine_double):
    cuda = use_engine_double()
    runtime = load_runtime(ranged_engine)

    for levels in ((0, 51, 102, 255), (255,), (102, 0), (51, 51, 51, 51)):
        scores = runtime.run(pictures(*levels))["detection_scores"]
        assert scores[:, 0].tolist() == pytest.approx([level / 255 for level in levels])

    assert cuda.recorder.launched == 0


def test_the_input_shape_is_set_only_when_it_changes(ranged_engine, use_engine_double, tmp_path):
    log = tmp_path / "calls.jsonl"
    use_engine_double(log=log)
    runtime = load_runtime(ranged_engine)

    for count in (2, 2, 3):
        runtime.run(pictures(*[51] * count))

    told = [each[2] for each in recorded(log) if each[0] == "set_input_shape"]
    assert told == [str((count, SIDE, SIDE, 3)) for count in (2, 3)]


def test_a_later_run_does_not_change_earlier_results(engine, use_engine_double):
    use_engine_double()
    runtime = load_runtime(engine)

    first = runtime.run(pictures(51))["detection_scores"]
    runtime.run(pictures(255))

    assert first[0, 0] == pytest.approx(0.2)


def test_a_timed_run_gives_the_same_outputs_and_three_durations(engine, use_engine_double):
    use_engine_double()

    timed = load_runtime(engine).run_timed(pictures(51))

    assert timed.outputs["detection_scores"][0, 0] == pytest.approx(0.2)
    assert min(timed.copy_in, timed.compute, timed.copy_out) > 0


def test_closing_releases_everything(ranged_engine, engine, use_engine_double):
    for each in (ranged_engine, engine):
        cuda = use_engine_double()
        runtime = load_runtime(each)
        for _ in range(3):
            runtime.run(pictures(51))

        runtime.close()

        assert cuda.is_empty


def test_an_engine_without_sidecar_is_run_when_it_is_trusted(tmp_path, use_engine_double):
    use_engine_double()
    engine = write_engine(tmp_path / "tiny.engine", RANGE, sidecar=False)

    runtime = load_runtime(engine, trust=True)

    assert runtime.spec.batch == RANGE
    assert runtime.run(pictures(51))["detection_scores"][0, 0] == pytest.approx(0.2)


def test_an_engine_without_sidecar_names_its_classes_by_their_numbers(tmp_path, use_engine_double):
    use_engine_double()
    engine = write_engine(tmp_path / "tiny.engine", sidecar=False)

    with Detector.load(engine, trust=True) as detector:
        (found,) = detector.detect(np.full((SIDE, SIDE, 3), 255, np.uint8))

    assert detector.spec.classes == ()
    assert found.labels.tolist() == CLASSES.tolist()
    numbers = range(int(max(CLASSES)) + 1)
    assert found.names == tuple(str(each) for each in numbers)
    assert found.category_ids == tuple(each + 1 for each in numbers)

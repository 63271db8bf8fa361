"""Lanes: the images of a batch are computed side by side, in the runtimes that can do this."""

from __future__ import annotations

import numpy as np
import pytest

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.detection.detector import Detector
from effdet_deploy.errors import UsageError
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.runtimes.adapter import SideBySideRuntime
from effdet_deploy.runtimes.lanes import CACHED_PIXELS, Lanes, images_in_cache, lane_count
from tests.onnx_models import SIDE, detector_spec, with_input, write_tiny
from tests.runtimes.threads import scores_on_threads

RUNTIMES = ["onnxruntime", "openvino"]
RANGED = BatchSpec(1, 1, 16)


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(params=RUNTIMES)
def opened(request, tmp_path):
    pytest.importorskip(request.param)

    def open_tiny(threads=2, batch=RANGED, **output):
        path = write_tiny(tmp_path / "tiny.onnx", detector_spec(batch=batch, **output))
        return load_runtime(path, backend=request.param, device="cpu", threads=threads)

    return open_tiny


@pytest.fixture
def counted(monkeypatch):
    """Return a list of the sizes of all batches that the lanes were given."""
    sizes = []
    run = Lanes.run

    def counting(self, feeds):
        sizes.append(len(feeds["images"]))
        return run(self, feeds)

    monkeypatch.setattr(Lanes, "run", counting)
    return sizes


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_images_side_by_side_give_what_the_batch_gives(opened, count, threads):
    runtime = opened(threads)
    assert isinstance(runtime, SideBySideRuntime)
    whole = runtime.run({"images": pictures(count)})
    apart = runtime.run_side_by_side({"images": pictures(count)})
    assert whole.keys() == apart.keys()
    for name, expected in whole.items():
        assert apart[name].dtype == expected.dtype
        np.testing.assert_allclose(apart[name], expected, atol=1e-6)


def test_a_detector_divides_a_batch_and_a_plain_run_does_not(opened, counted):
    detector = Detector(opened(threads=2))
    alone = [detector.detect(each)[0].scores for each in pictures(6)]
    assert counted == []
    together = [each.scores for each in detector.detect(list(pictures(6)))]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert counted == [6]
    detector.runtime.run({"images": pictures(6)})
    assert counted == [6]


@pytest.mark.parametrize("batch", [BatchSpec(), BatchSpec(4, 4, 4), BatchSpec(2, 2, 8)])
def test_a_model_that_takes_no_single_image_of_a_batch_runs_it_whole(opened, counted, batch):
    count = batch.maximum
    outputs = opened(batch=batch).run_side_by_side({"images": pictures(count)})
    assert len(outputs["num_detections"]) == count
    assert counted == []


def test_heads_are_divided_too(opened):
    runtime = opened(nms="none")
    whole = runtime.run({"images": pictures(4)})
    for name, apart in runtime.run_side_by_side({"images": pictures(4)}).items():
        np.testing.assert_allclose(apart, whole[name], atol=1e-6)


def test_a_file_that_changes_after_loading_changes_no_result(opened, tmp_path):
    runtime = opened()
    expected = runtime.run({"images": pictures(4)})["detection_scores"]
    (tmp_path / "tiny.onnx").unlink()
    write_tiny(tmp_path / "tiny.onnx", detector_spec(max_detections=2))
    found = runtime.run_side_by_side({"images": pictures(4)})["detection_scores"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_many_threads_get_the_results_of_their_own_batches(opened):
    runtime = opened()
    batches = [pictures(count) for count in (2, 3, 4, 5)]
    expected = [runtime.run({"images": each})["detection_scores"] for each in batches]
    found = scores_on_threads(runtime.run_side_by_side, batches, times=10)
    for mine, scores in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, scores, atol=1e-6)


@pytest.mark.parametrize("batch", [BatchSpec(), RANGED])
def test_single_images_on_the_callers_threads_give_the_results_of_a_plain_run(opened, batch):
    runtime = opened(batch=batch)
    assert runtime.lanes.count == 2
    alone = [pictures(6)[[each]] for each in range(6)]
    expected = [runtime.run({"images": each})["detection_scores"] for each in alone]
    found = scores_on_threads(runtime.run_on_one_thread, alone, times=10)
    for mine, scores in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, scores, atol=1e-6)
    runtime.close()
    with pytest.raises(UsageError, match="is closed"):
        runtime.run_on_one_thread({"images": alone[0]})


def test_a_file_that_changes_after_loading_changes_nothing_on_one_thread(opened, tmp_path):
    runtime = opened(batch=BatchSpec())
    expected = runtime.run({"images": pictures(1)})["detection_scores"]
    (tmp_path / "tiny.onnx").unlink()
    write_tiny(tmp_path / "tiny.onnx", detector_spec(max_detections=2))
    found = runtime.run_on_one_thread({"images": pictures(1)})["detection_scores"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_after_close_it_refuses_to_run(opened):
    runtime = opened()
    runtime.run_side_by_side({"images": pictures(4)})
    runtime.close()
    runtime.close()
    with pytest.raises(UsageError, match="is closed"):
        runtime.run_side_by_side({"images": pictures(4)})


def test_closed_lanes_say_that_they_are_closed():
    lanes = Lanes("a model", 2, lambda: dict)
    lanes.close()
    with pytest.raises(UsageError, match="'a model' is closed"):
        lanes.run({"images": np.arange(4)})


def test_every_lane_has_an_image_or_the_batch_is_run_whole(opened, counted):
    runtime = opened(threads=4)
    for count in (3, 4, 9):
        runtime.run_side_by_side({"images": pictures(count)})
    assert counted == [4, 9]


@pytest.mark.parametrize(("most", "expected"), [(3, [1, 3, 3]), (9, [3, 4])])
def test_groups_of_images_are_as_large_as_the_lanes_and_the_caches_allow(most, expected):
    sizes = []

    def run(feeds):
        sizes.append(len(feeds["images"]))
        return {"rows": feeds["images"]}

    lanes = Lanes("a model", 2, lambda: run, most)
    batch = np.arange(7)
    np.testing.assert_array_equal(lanes.run({"images": batch})["rows"], batch)
    lanes.close()
    assert sorted(sizes) == expected


def test_the_number_of_lanes_and_of_images_in_the_cache():
    spec = detector_spec(batch=RANGED)
    assert lane_count(3, spec) == 3
    assert lane_count(None, spec) >= 1
    assert lane_count(3, detector_spec()) == 3
    assert lane_count(3, detector_spec(batch=BatchSpec(2, 2, 8))) == 1
    assert images_in_cache(spec) == CACHED_PIXELS // SIDE**2
    assert images_in_cache(with_input(spec, height=1024, width=1024)) == 1

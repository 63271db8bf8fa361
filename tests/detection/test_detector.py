from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import effdet_deploy
from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.detection.detector import Detector, load
from effdet_deploy.detection.postprocess import finish_heads
from effdet_deploy.errors import ImageError, ModelFileError, UsageError
from tests.onnx_models import (
    BOXES,
    NAMES,
    SIDE,
    detector_spec,
    raw_heads,
    set_spec,
    tiny_model,
    with_input,
    write_tiny,
)

# Scores are a mean over 128x128x3 float32 values.
SCORE_TOLERANCE = 1e-4


@pytest.fixture
def detector(tmp_path):
    with load(write_tiny(tmp_path / "tiny.onnx")) as loaded:
        yield loaded


def white(height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def test_boxes_come_back_in_pixels_of_the_original_picture_and_clipped(detector):
    (found,) = detector.detect(white(2 * SIDE, 2 * SIDE))
    # The third box reaches 22 network pixels beyond the picture, the fourth begins before it.
    expected = np.clip(2 * BOXES, 0, 2 * SIDE)
    np.testing.assert_array_equal(found.boxes, expected)
    np.testing.assert_allclose(found.scores, [1, 0.8, 0.6, 0.4], atol=SCORE_TOLERANCE)
    assert [found.names[label] for label in found.labels] == ["square", "ring", "circle", "square"]
    assert found.category_ids == (10, 11, 12)


def test_a_box_that_lies_in_the_letterbox_border_is_dropped(detector):
    image = np.full((SIDE // 2, SIDE, 3), 255, np.uint8)
    (found,) = detector.detect(image)
    # 64 rows of picture: the box that begins at row 100 has no area inside.
    assert len(found) == 3
    assert (found.boxes[:, 3] <= SIDE // 2).all()


def test_a_single_picture_and_a_list_give_the_same(detector, tmp_path):
    image = white()
    Image.fromarray(image).save(tmp_path / "white.png")
    sources = [image, Image.fromarray(image), tmp_path / "white.png", str(tmp_path / "white.png")]
    results = detector.detect(sources)
    assert len(results) == len(sources)
    for found in (*results, *(detector.detect(source)[0] for source in sources)):
        np.testing.assert_array_equal(found.boxes, results[0].boxes)


def test_no_pictures_give_no_results(detector):
    assert detector.detect([]) == []


@pytest.mark.parametrize(
    "batch", [BatchSpec(1, 1, 1), BatchSpec(3, 3, 3), BatchSpec(1, 2, 4), BatchSpec(2, 4, 8)]
)
def test_any_number_of_pictures_runs_on_any_batch(tmp_path, batch):
    path = write_tiny(tmp_path / "tiny.onnx", detector_spec(batch=batch))
    pictures = [np.full((40, 40, 3), level, np.uint8) for level in range(100, 250, 30)]
    with Detector.load(path) as detector:
        levels = [found.scores[0] for found in detector.detect(pictures)]
    np.testing.assert_allclose(levels, [x / 255 for x in range(100, 250, 30)], atol=SCORE_TOLERANCE)


def test_the_score_threshold_drops_what_is_below_it(detector):
    (found,) = detector.detect(white(), score_threshold=0.7)
    assert len(found) == 2


def test_a_threshold_below_the_models_floor_is_refused_rather_than_ignored(detector):
    with pytest.raises(UsageError, match=r"below 0\.01"):
        detector.detect(white(), score_threshold=0.001)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(detector, threshold):
    with pytest.raises(UsageError, match="between 0 and 1"):
        detector.detect(white(), score_threshold=threshold)


def test_yxyx_models_give_the_same_boxes(tmp_path, detector):
    swapped = load(write_tiny(tmp_path / "yxyx.onnx", detector_spec(box_format="yxyx")))
    np.testing.assert_array_equal(
        swapped.detect(white())[0].boxes, detector.detect(white())[0].boxes
    )


@pytest.mark.parametrize("kind", ["float255", "normalized"])
def test_models_with_float_inputs_get_prepared_pictures(tmp_path, kind):
    spec = with_input(detector_spec(), kind=kind, mean=(0.5,) * 3, std=(0.5,) * 3)
    (found,) = load(write_tiny(tmp_path / "float.onnx", spec)).detect(white())
    best = 1.0 if kind == "float255" else 1 / 255
    assert found.scores.max(initial=0) == pytest.approx(best if best > 0.01 else 0, abs=1e-4)


def test_raw_heads_are_finished_in_numpy(tmp_path):
    spec = detector_spec(nms="none", max_detections=50, score_threshold=0.2)
    (found,) = load(write_tiny(tmp_path / "raw.onnx", spec)).detect(
        np.zeros((SIDE, SIDE, 3), np.uint8)
    )
    logits, codes = raw_heads(spec)
    expected = finish_heads(logits[None], codes[None], spec)
    boxes = np.clip(expected["detection_boxes"][0], 0, SIDE)
    boxes = boxes[(boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])]
    assert len(boxes) > 10
    np.testing.assert_array_equal(found.boxes, boxes)


def test_a_model_that_computes_nan_is_reported(tmp_path):
    model = tiny_model()
    scale = next(each for each in model.graph.initializer if each.name == "scale")
    scale.raw_data = np.float32(np.nan).tobytes()
    (tmp_path / "nan.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match=r"detection_scores.*NaN"):
        load(tmp_path / "nan.onnx").detect(white())


def test_a_class_that_the_spec_does_not_know_is_reported(tmp_path):
    spec = detector_spec()
    model = tiny_model(spec)
    set_spec(model, detector_spec())
    classes = next(each for each in model.graph.initializer if each.name == "classes")
    classes.raw_data = np.array([0, 1, 2, len(NAMES)], np.float32).tobytes()
    (tmp_path / "classes.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="class 3"):
        load(tmp_path / "classes.onnx").detect(white())


@pytest.mark.parametrize("count", [-1, 10**6])
def test_more_boxes_than_there_is_room_for_are_reported(detector, monkeypatch, count):
    run = detector.runtime.run

    def miscounting(feeds):
        outputs = run(feeds)
        return outputs | {"num_detections": np.full_like(outputs["num_detections"], count)}

    monkeypatch.setattr(detector.runtime, "run_side_by_side", miscounting)
    with pytest.raises(ModelFileError, match=f"found {count} boxes"):
        detector.detect(white())


def test_an_unreadable_picture_among_others_raises(detector, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        detector.detect([white(), tmp_path / "bad.jpg"])


def test_the_public_names_are_the_same_objects():
    assert effdet_deploy.load is load
    assert effdet_deploy.Detector is Detector
    assert "Detector" in dir(effdet_deploy)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = effdet_deploy.nonsense


def test_it_says_what_it_is(detector):
    assert repr(detector) == "Detector(tiny, onnxruntime on cpu, fp32)"


def test_many_threads_get_what_one_gets(detector):
    pictures = [np.full((30, 50, 3), level, np.uint8) for level in range(0, 250, 10)]
    serial = [detector.detect(picture)[0].scores for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda picture: detector.detect(picture)[0].scores, pictures))
    for one, other in zip(serial, parallel, strict=True):
        np.testing.assert_array_equal(one, other)

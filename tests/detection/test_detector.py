"""`Detector.detect`: boxes in the picture's pixels, every form of picture, threads, processes."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
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


def test_a_single_picture_and_a_list_give_the_same_detections(detector, tmp_path):
    image = white()
    Image.fromarray(image).save(tmp_path / "white.png")
    sources = [image, Image.fromarray(image), tmp_path / "white.png", str(tmp_path / "white.png")]
    results = detector.detect(sources)
    assert len(results) == len(sources)
    for found in (*results, *(detector.detect(source)[0] for source in sources)):
        np.testing.assert_array_equal(found.boxes, results[0].boxes)


def test_an_empty_list_of_pictures_gives_no_results(detector):
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


def test_a_threshold_below_that_of_the_model_is_refused_rather_than_ignored(detector):
    with pytest.raises(UsageError, match=r"below 0\.01"):
        detector.detect(white(), score_threshold=0.001)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_is_not_between_0_and_1_is_refused(detector, threshold):
    with pytest.raises(UsageError, match="between 0 and 1"):
        detector.detect(white(), score_threshold=threshold)


def test_yxyx_models_give_the_same_boxes(tmp_path, detector):
    swapped = load(write_tiny(tmp_path / "yxyx.onnx", detector_spec(box_format="yxyx")))
    np.testing.assert_array_equal(
        swapped.detect(white())[0].boxes, detector.detect(white())[0].boxes
    )


@pytest.mark.parametrize("kind", ["float255", "normalized"])
def test_models_with_float_inputs_get_prepared_pictures(tmp_path, kind):
    """The score is the input's mean / 255; white is normalized to 1, so it scores 1/255."""
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
def test_an_impossible_number_of_boxes_is_reported(detector, monkeypatch, count):
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


def test_the_package_exports_the_same_objects():
    assert effdet_deploy.load is load
    assert effdet_deploy.Detector is Detector
    assert "Detector" in dir(effdet_deploy)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = effdet_deploy.nonsense


def test_its_repr_names_the_model_the_backend_and_the_precision(detector):
    assert repr(detector) == "Detector(tiny, onnxruntime on cpu, fp32)"


def test_many_threads_get_what_a_single_thread_gets(detector):
    pictures = [np.full((30, 50, 3), level, np.uint8) for level in range(0, 250, 10)]
    serial = [detector.detect(picture)[0].scores for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda picture: detector.detect(picture)[0].scores, pictures))
    for one, other in zip(serial, parallel, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_usual_form_of_a_picture_is_taken(detector, tmp_path):
    torch = pytest.importorskip("torch")
    pixels = np.random.default_rng(0).integers(128, 256, (SIDE, SIDE // 2, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    known = detector.detect(pixels)[0]
    assert len(known)
    with path.open("rb") as file:
        for source in (
            path,
            data,
            bytearray(data),
            memoryview(data),
            file,
            io.BytesIO(data),
            Image.open(path),
            torch.from_numpy(pixels),
            torch.from_numpy(pixels).permute(2, 0, 1),
            [path],
            (each for each in [data]),
            {path},
        ):
            (found,) = detector.detect(source)
            np.testing.assert_array_equal(found.boxes, known.boxes, err_msg=repr(source)[:60])
            np.testing.assert_array_equal(found.scores, known.scores)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (None, "cannot be a NoneType"),
        (3, "cannot be a int"),
        ({"a": 1}, "cannot be a dict"),
        ([None], "A picture cannot be a NoneType"),
        ([[1, 2]], "A picture cannot be a list"),
        (io.StringIO("text"), "must give bytes, not str"),
        (b"path.png", "not an image of a known format"),
        ("/dev/null", "is not an ordinary file"),
    ],
)
def test_other_objects_are_refused_in_a_sentence(detector, wrong, said):
    with pytest.raises(ImageError, match=said):
        detector.detect(wrong)


def test_a_closed_file_and_a_float_tensor_are_refused_in_a_sentence(detector, tmp_path):
    torch = pytest.importorskip("torch")
    file = io.BytesIO(b"")
    file.close()
    with pytest.raises(ImageError, match="cannot be read"):
        detector.detect(file)
    with pytest.raises(ImageError, match="float32"):
        detector.detect(torch.zeros(3, 8, 8))
    with pytest.raises(ImageError, match=r"detach\(\)"):
        detector.detect(torch.zeros(3, 8, 8, requires_grad=True))


def test_a_named_pipe_is_refused_and_nothing_waits_for_it(detector, tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here: the test would show that nothing waits for one")
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match="is not an ordinary file"):
        detector.detect(tmp_path / "a.png")
    with pytest.raises(ModelFileError, match="is not an ordinary file"):
        load(tmp_path / "a.png")


def test_a_pickled_detector_opens_its_model_again_from_any_directory(tmp_path, monkeypatch):
    write_tiny(tmp_path / "tiny.onnx")
    monkeypatch.chdir(tmp_path)
    with load("tiny.onnx", threads=1) as detector:
        data = pickle.dumps(detector)
        monkeypatch.chdir("/")
        with pickle.loads(data) as again:
            assert repr(again) == repr(detector)
            np.testing.assert_array_equal(
                again.detect(white())[0].boxes, detector.detect(white())[0].boxes
            )
    with pytest.raises(UsageError, match="loaded from a file"):
        pickle.dumps(Detector(detector.runtime))


FORKED = """
import multiprocessing, sys
import numpy
from effdet_deploy import load

def work(detector, results):
    try:
        found = detector.detect([numpy.full((128, 128, 3), 255, numpy.uint8)] * 3)
        results.put([len(each) for each in found])
    except Exception as error:
        results.put(str(error))

if __name__ == "__main__":
    path, backend, *methods = sys.argv[1:]
    detector = load(path, backend)
    detector.detect([numpy.full((128, 128, 3), 255, numpy.uint8)] * 3)
    for method in methods:
        context = multiprocessing.get_context(method)
        results = context.Queue()
        other = context.Process(target=work, args=(detector, results), daemon=True)
        other.start()
        print(results.get(timeout=90))
        other.join(90)
        print(other.exitcode)
    print(len(detector.detect(numpy.full((128, 128, 3), 255, numpy.uint8))[0]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize(
    ("backend", "methods"), [("onnxruntime", ["fork", "spawn"]), ("openvino", ["fork"])]
)
def test_a_detector_works_in_forked_and_spawned_processes(tmp_path, backend, methods):
    pytest.importorskip(backend)
    path = write_tiny(tmp_path / "tiny.onnx", detector_spec(batch=BatchSpec(1, 1, 3)))
    script = tmp_path / "script.py"
    script.write_text(FORKED)
    command = [sys.executable, str(script), str(path), backend, *methods]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.stdout.split("\n")[:-1] == ["[4, 4, 4]", "0"] * len(methods) + ["4"], done.stderr


def test_a_runtime_that_does_not_survive_a_fork_is_named(detector, monkeypatch):
    process = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)
    detector._runtime.device = "cuda:0"
    with pytest.raises(UsageError, match="onnxruntime on cuda:0 does not survive the fork"):
        detector.detect(white())

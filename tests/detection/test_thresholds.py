"""A score threshold for each class, by its name."""

from __future__ import annotations

import numpy as np
import pytest

from effdet_deploy.detection.detector import load
from effdet_deploy.detection.outputs import shown_threshold
from effdet_deploy.detection.thresholds import read_thresholds
from effdet_deploy.errors import DataError, UnknownNameError, UsageError
from tests.onnx_models import SIDE, detector_spec, raw_heads, write_tiny

WHITE = np.full((SIDE, SIDE, 3), 255, np.uint8)
"""The tiny detector finds a square at 1.0, a ring at 0.8, a circle at 0.6, a square at 0.4."""


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    with load(write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.onnx")) as loaded:
        yield loaded


def found(detector, threshold) -> list[str]:
    """Return the class names of what is found in a white picture."""
    (rows,) = detector.detect(WHITE, threshold)
    return [rows.names[label] for label in rows.labels]


@pytest.mark.parametrize(
    ("threshold", "names"),
    [
        ({"square": 0.5}, ["square", "ring", "circle"]),
        ({"square": 0.5, "ring": 0.9}, ["square", "circle"]),
        ({"*": 0.7}, ["square", "ring"]),
        ({"*": 0.9, "circle": 0.1}, ["square", "circle"]),
        ({"circle": 0.1, "*": 0.9}, ["square", "circle"]),
        ({}, ["square", "ring", "circle", "square"]),
    ],
)
def test_a_class_has_its_own_threshold_or_else_that_of_the_star_or_of_the_model(
    detector, threshold, names
):
    assert found(detector, threshold) == names


def test_thresholds_by_class_hold_for_raw_heads(tmp_path):
    spec = detector_spec(nms="none", max_detections=200, score_threshold=0.1)
    with load(write_tiny(tmp_path / "heads.onnx", spec)) as detector:
        black = np.zeros_like(WHITE)
        (rows,) = detector.detect(black)
        (fewer,) = detector.detect(black, {"circle": 0.9})
    assert len(raw_heads(spec)[0]) > 0
    kept = (rows.labels != 1) | (rows.scores >= 0.9)
    assert 0 < kept.sum() < len(rows)
    np.testing.assert_array_equal(fewer.boxes, rows.boxes[kept])


@pytest.mark.parametrize(
    ("threshold", "error", "said"),
    [
        ({"squar": 0.5}, UnknownNameError, "square"),
        ({"square": 0.001}, UsageError, "of 'square' of 0.001 is not possible"),
        ({"square": 1.5}, UsageError, "of 'square' must be between 0 and 1"),
        ({"*": float("nan")}, UsageError, "between 0 and 1"),
        ({"square": "0.5"}, UsageError, "between 0 and 1"),
    ],
)
def test_an_impossible_threshold_is_refused_with_its_class(detector, threshold, error, said):
    with pytest.raises(error, match=said):
        detector.detect(WHITE, threshold)


def test_on_the_command_line_other_classes_keep_the_default(detector):
    assert shown_threshold(detector, {"square": 0.5}) == {"*": 0.3, "square": 0.5}
    assert shown_threshold(detector, {"*": 0.1}) == {"*": 0.1}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.json", '{"square": 0.5, "no": 1}'),
        ("classes.yaml", "square: 0.5\nno: 1\n"),
    ],
)
def test_a_file_gives_one_threshold_per_class(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_thresholds(str(tmp_path / name)) == {"square": 0.5, "no": 1.0}
    assert read_thresholds("0.25") == 0.25


@pytest.mark.parametrize("text", ["", "[0.5]", "{}", '{"square": "high"}', '{"square": [1]}'])
@pytest.mark.parametrize("name", ["classes.json", "classes.yaml"])
def test_a_file_without_thresholds_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=name):
        read_thresholds(str(tmp_path / name))


def test_a_file_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="no file 'half'"):
        read_thresholds("half")

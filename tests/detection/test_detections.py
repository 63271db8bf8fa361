"""What was found in a picture: as JSON, as COCO results, for the package supervision, and drawn."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.detection.detections import Detections, class_color
from effdet_deploy.errors import MissingPackageError

NAMES = ("bicycle", "motorbike", "person")


def detections(boxes=((10, 20, 60, 80), (30, 30, 90, 95)), labels=(2, 0)) -> Detections:
    return Detections(
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.5, len(labels), dtype=np.float32),
        labels=np.array(labels, dtype=np.int64),
        names=NAMES,
        category_ids=(2, 4, 1),
    )


def test_json_is_plain_and_names_every_detection():
    document = json.loads(json.dumps(detections().to_json()))
    assert [each["name"] for each in document] == ["person", "bicycle"]
    assert document[0]["box"] == [10, 20, 60, 80]
    assert document[0]["category_id"] == 1
    assert document[0]["label"] == 2


def test_coco_results_use_the_category_id_and_width_and_height():
    results = detections().to_coco(image_id=7)
    assert results[1] == {
        "image_id": 7,
        "category_id": 2,
        "bbox": [30, 30, 60, 65],
        "score": 0.5,
    }


def test_coco_results_are_accepted_by_pycocotools(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": 7, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(detections().to_coco(7))
    assert [each["area"] for each in loaded.dataset["annotations"]] == [50 * 60, 60 * 65]


def test_supervision_gets_boxes_scores_classes_and_names():
    pytest.importorskip("supervision")
    converted = detections().to_supervision()
    np.testing.assert_array_equal(converted.xyxy, detections().boxes)
    np.testing.assert_array_equal(converted.class_id, [2, 0])
    assert list(converted.data["class_name"]) == ["person", "bicycle"]


def test_supervision_takes_an_empty_result():
    pytest.importorskip("supervision")
    assert len(detections((), ()).to_supervision()) == 0


def test_a_missing_supervision_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingPackageError, match="pip install supervision"):
        detections().to_supervision()


def test_its_text_counts_what_was_found():
    assert str(detections(((1, 1, 2, 2),) * 3, (0, 2, 2))) == "person x2, bicycle"
    assert str(detections((), ())) == "nothing"


def test_drawing_marks_the_border_of_each_box_and_does_not_change_the_input():
    picture = np.full((100, 120, 3), 200, np.uint8)
    drawn = np.asarray(detections().draw(picture))
    assert (picture == 200).all()
    assert drawn.shape == picture.shape
    for (_, _, right, bottom), label in zip(detections().boxes.astype(int), (2, 0), strict=True):
        assert tuple(drawn[bottom - 20, right]) == class_color(label)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 1000), (1000, 1), (3000, 2000)])
def test_pictures_of_any_shape_can_be_drawn_on(size):
    width, height = size
    everywhere = detections(((0, 0, width, height),), (1,))
    assert everywhere.draw(Image.new("RGB", size)).size == size


def test_a_label_stays_on_the_picture_at_every_corner():
    picture = Image.new("RGB", (400, 300))
    for corner in ((0, 0, 20, 20), (380, 0, 400, 20), (380, 280, 400, 300), (0, 280, 20, 300)):
        drawn = np.asarray(detections((corner,), (1,)).draw(picture))
        colored = (drawn == class_color(1)).all(axis=2)
        # A label cut off by the border would show fewer pixels than one in the middle.
        middle = np.asarray(detections(((190, 140, 210, 160),), (1,)).draw(picture))
        assert colored.sum() >= 0.8 * (middle == class_color(1)).all(axis=2).sum()


def test_a_box_without_area_is_not_drawn():
    drawn = detections(((5, 5, 5, 9),), (0,)).draw(Image.new("RGB", (20, 20)))
    assert not np.asarray(drawn).any()


def test_the_first_ninety_classes_have_distinct_colors():
    assert len({class_color(label) for label in range(90)}) == 90

"""A set with a mistake that people make is read right with a note, raises a doubt, or is refused.

The true boxes are those that the detector finds, so that a set that is read right has a mAP of 1.
"""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.detection.detector import load
from effdet_deploy.errors import DataError
from effdet_deploy.evaluation.cocoset import read_coco
from effdet_deploy.evaluation.evaluating import evaluate
from tests.onnx_models import NAMES, SIDE, write_tiny

PICTURES = 3
WIDTH = SIDE // 2


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    with load(write_tiny(tmp_path_factory.mktemp("model") / "tiny.onnx")) as loaded:
        yield loaded


@pytest.fixture
def truth(detector, tmp_path):
    """Annotations without a mistake; their pictures in ``images/`` are twice as high as wide."""
    (tmp_path / "images").mkdir()
    picture = np.full((SIDE, WIDTH, 3), 255, np.uint8)
    (found,) = detector.detect(picture)
    document = {
        "images": [],
        "annotations": [],
        "categories": [
            {"id": number, "name": name}
            for number, name in zip(found.category_ids, NAMES, strict=True)
        ],
    }
    for image_id in range(PICTURES):
        name = f"{image_id}.png"
        Image.fromarray(picture).save(tmp_path / "images" / name)
        document["images"].append(
            {"id": image_id, "file_name": name, "width": WIDTH, "height": SIDE}
        )
        for row in found.to_coco(image_id):
            box = {"id": len(document["annotations"]), "iscrowd": 0, **row}
            document["annotations"].append({key: box[key] for key in box if key != "score"})
    return document


@pytest.fixture
def measured(detector, tmp_path):
    """Return a function that evaluates the detector on annotations."""

    def measure(document, rule=None):
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(document))
        return evaluate({"tiny": detector}, read_coco(path, class_map=rule))

    return measure


def renumbered(document, new):
    changed = copy.deepcopy(document)
    for each in changed["categories"]:
        each["id"] = new[each["id"]]
    for each in changed["annotations"]:
        each["category_id"] = new[each["category_id"]]
    return changed


def test_a_sound_set_gives_a_map_of_1_without_a_note(truth, measured):
    result = measured(truth)
    assert result.models[0].accuracy.ap == pytest.approx(1)
    assert result.notes == result.doubts == ()


@pytest.mark.parametrize(
    "new", [{10: 0, 11: 1, 12: 2}, {10: 12, 11: 11, 12: 10}, {10: "3", 11: "7", 12: "90"}]
)
def test_other_ids_under_the_same_names_change_nothing_and_are_noted(truth, measured, new):
    result = measured(renumbered(truth, new))
    assert result.models[0].accuracy.ap == pytest.approx(1)
    assert "matched by name" in result.notes[0]


def test_foreign_names_are_refused_and_the_error_names_the_option_that_decides(truth, measured):
    for each in truth["categories"]:
        each["name"] = f"foreign {each['id']}"
    with pytest.raises(DataError, match="another in the annotations") as caught:
        measured(truth)
    assert "--class-map by-name, by-id" in caught.value.remedy
    assert measured(truth, "by-id").models[0].accuracy.ap == pytest.approx(1)


def test_a_category_that_the_model_lacks_is_listed_and_the_map_is_over_the_others(truth, measured):
    annotated = len({each["category_id"] for each in truth["annotations"]})
    truth["categories"].append({"id": 99, "name": "yak"})
    truth["annotations"].append({**truth["annotations"][0], "id": 999, "category_id": 99})
    result = measured(truth)
    (model,) = result.models
    assert model.lacking == (99,)
    assert model.ap_common == pytest.approx(1)
    assert model.accuracy.ap == pytest.approx(annotated / (annotated + 1))
    assert any("no class for yak" in each for each in result.notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y, w, h: [x, y, x + w, y + h], "corners"),
        (lambda x, y, w, h: [x / WIDTH, y / SIDE, w / WIDTH, h / SIDE], "fractions"),
        (lambda x, y, w, h: [2 * x, 2 * y, 2 * w, 2 * h], "reach out of their pictures"),
        (lambda x, y, w, _: [x, y, w, 0.25], "smaller than a pixel"),
    ],
)
def test_boxes_in_another_format_are_doubted(truth, measured, change, said):
    for each in truth["annotations"]:
        each["bbox"] = change(*each["bbox"])
        each["area"] = None
    result = measured(truth)
    assert result.models[0].accuracy.ap < 0.5
    assert any(said in each for each in result.doubts)


@pytest.mark.parametrize("side", [1, 2])
def test_pictures_that_were_turned_or_scaled_after_the_boxes_are_doubted(
    truth, measured, tmp_path, side
):
    exif = Image.Exif()
    exif[0x0112] = 6 if side == 1 else 1
    for path in (tmp_path / "images").iterdir():
        Image.new("RGB", (WIDTH * side, SIDE * side), "white").save(path, exif=exif)
    result = measured(truth)
    said = "EXIF orientation was not applied" if side == 1 else "scaled after they were annotated"
    assert any(said in each for each in result.doubts)

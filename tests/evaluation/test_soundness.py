"""A set whose boxes do not fit its pictures raises doubts about its mAP."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from effdet_deploy.evaluation.cocoset import read_coco
from effdet_deploy.evaluation.soundness import doubts_about
from tests.evaluation.sets import SIDE, write_set


@pytest.fixture
def annotations(tmp_path):
    return write_set(tmp_path / "set", images=6)


def doubts(annotations, change=lambda _document: None):
    document = json.loads(annotations.read_text())
    change(document)
    annotations.write_text(json.dumps(document))
    return doubts_about(read_coco(annotations))


def boxes(change):
    def apply(document):
        for each in document["annotations"]:
            each["bbox"] = change(*each["bbox"])

    return apply


def test_a_sound_set_raises_no_doubt(annotations):
    assert doubts(annotations) == ()


def test_corners_in_place_of_sizes_are_recognized(annotations):
    (said,) = doubts(annotations, boxes(lambda x, y, w, h: [x, y, x + w, y + h]))
    assert "corners (x1, y1, x2, y2)" in said
    assert "for example annotation 1, [" in said


def test_boxes_in_fractions_of_the_picture_are_recognized(annotations):
    (said,) = doubts(annotations, boxes(lambda *box: [each / SIDE for each in box]))
    assert "fractions" in said
    assert "18 of 18" in said


def test_pictures_turned_by_exif_are_recognized(annotations):
    folder = annotations.parent / "images"
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in folder.glob("*.png"):
        Image.new("RGB", (SIDE, SIDE // 2)).save(path, exif=exif)

    def landscape(document):
        for each in document["images"]:
            each["height"] = SIDE // 2

    (said,) = (each for each in doubts(annotations, landscape) if "EXIF" in each)
    assert "6 of 6 pictures" in said
    assert f"is {SIDE // 2}x{SIDE}, annotated as {SIDE}x{SIDE // 2}" in said


def test_pictures_whose_sides_are_swapped_without_exif_are_recognized(annotations):
    for path in (annotations.parent / "images").glob("*.png"):
        Image.new("RGB", (SIDE, SIDE // 2)).save(path)

    def on_its_side(document):
        for each in document["images"]:
            each["width"] = str(SIDE // 2)

    (said,) = (each for each in doubts(annotations, on_its_side) if "swapped" in each)
    assert "6 of 6 pictures" in said
    assert "EXIF" not in said


def test_a_size_missing_in_the_annotations_raises_no_doubt(annotations):
    def without(document):
        for each in document["images"]:
            del each["height"]

    assert doubts(annotations, without) == ()


def test_a_picture_that_cannot_be_opened_raises_no_doubt(annotations):
    (annotations.parent / "images" / "001.png").write_bytes(b"no picture")
    assert doubts(annotations) == ()


def test_corners_in_fractions_of_the_picture_are_recognized(annotations):
    change = boxes(lambda x, y, w, h: [each / SIDE for each in (x, y, x + w, y + h)])
    (said,) = doubts(annotations, change)
    assert "fractions" in said


def test_the_example_in_a_doubt_has_the_id_of_its_annotation(annotations):
    def beyond(document):
        for each in document["annotations"]:
            each["id"] += 700
            each["bbox"][0] += SIDE

    (said,) = doubts(annotations, beyond)
    assert "for example annotation 701, [" in said


def test_scaled_pictures_are_recognized(annotations):
    def twice(document):
        for each in document["images"]:
            each["width"] = each["height"] = 2 * SIDE

    (said,) = doubts(annotations, twice)
    assert "scaled after they were annotated" in said


def test_boxes_beyond_the_borders_are_counted(annotations):
    (said,) = doubts(annotations, boxes(lambda x, y, w, h: [x + SIDE, y, w, h]))
    assert "18 of 18 boxes reach out of their pictures" in said


def test_boxes_thinner_than_a_pixel_are_counted(annotations):
    (said,) = doubts(annotations, boxes(lambda x, y, w, _: [x, y, w, 0.5]))
    assert "smaller than a pixel" in said


def test_a_few_wrong_boxes_raise_no_doubt_about_the_set(tmp_path):
    annotations = write_set(tmp_path / "many", images=20)

    def one(document):
        document["annotations"][0]["bbox"] = [90, 90, 30, 30]

    assert doubts(annotations, one) == ()

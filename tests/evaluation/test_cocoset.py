from __future__ import annotations

import json

import pytest

from effdet_deploy.errors import DataError
from effdet_deploy.evaluation.cocoset import read_coco
from tests.evaluation.sets import write_set


@pytest.fixture
def annotations(tmp_path):
    return write_set(tmp_path / "set")


def test_pictures_stand_in_the_folder_beside_the_annotations(annotations):
    dataset = read_coco(annotations)
    assert [path.name for path in dataset.paths.values()][:2] == ["001.png", "002.png"]
    assert dataset.categories == {10: "thing 10", 11: "thing 11", 12: "thing 12"}


def test_a_limit_leaves_out_pictures_and_their_boxes(annotations):
    dataset = read_coco(annotations, limit=2)
    assert len(dataset) == 2
    assert {each["image_id"] for each in dataset.document["annotations"]} == {1, 2}


def test_a_missing_picture_is_named(annotations):
    (annotations.parent / "images" / "002.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 pictures.*002\.png"):
        read_coco(annotations)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "does not hold a JSON object"),
        ("{}", "have no images"),
        (json.dumps({"images": [], "annotations": [], "categories": []}), "name no pictures"),
    ],
)
def test_annotations_of_another_form_are_refused(tmp_path, content, said):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        read_coco(path)


def test_a_set_without_boxes_is_refused(annotations):
    document = json.loads(annotations.read_text())
    annotations.write_text(json.dumps(document | {"annotations": []}))
    with pytest.raises(DataError, match="hold no boxes"):
        read_coco(annotations)

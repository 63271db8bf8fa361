"""COCO sets are read as many tools write them; what is wrong in one is refused and named."""

from __future__ import annotations

import json

import pytest

from effdet_deploy.errors import DataError
from effdet_deploy.evaluation.accuracy import measure
from effdet_deploy.evaluation.cocoset import find_pictures, read_coco
from tests.evaluation.sets import noisy_results, write_set
from tests.onnx_models import NAMES


@pytest.fixture
def annotations(tmp_path):
    return write_set(tmp_path / "set")


def test_pictures_are_found_in_the_folder_beside_the_annotations(annotations):
    dataset = read_coco(annotations)
    assert [path.name for path in dataset.paths.values()][:2] == ["001.png", "002.png"]
    assert dataset.categories == dict(zip((10, 11, 12), NAMES, strict=True))


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
def test_annotations_that_are_not_a_coco_set_are_refused(tmp_path, content, said):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        read_coco(path)


def test_a_set_without_boxes_is_refused(annotations):
    document = json.loads(annotations.read_text())
    annotations.write_text(json.dumps(document | {"annotations": []}))
    with pytest.raises(DataError, match="have no box in any of the"):
        read_coco(annotations)


def changed(annotations, section, change):
    """Apply ``change`` to every entry of a section, and write the annotations again."""
    document = json.loads(annotations.read_text())
    for each in document[section]:
        change(each)
    annotations.write_text(json.dumps(document))


def test_missing_areas_and_crowd_flags_are_added(annotations):
    known = read_coco(annotations).document["annotations"]
    changed(annotations, "annotations", lambda each: [each.pop(key) for key in ("area", "iscrowd")])
    found = read_coco(annotations).document["annotations"]
    assert [each["area"] for each in found] == pytest.approx([each["area"] for each in known])
    assert {each["iscrowd"] for each in found} == {0}


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("images", "file_name"),
        ("images", "id"),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
        ("annotations", "bbox"),
        ("categories", "name"),
    ],
)
def test_an_entry_without_a_needed_field_is_refused(annotations, section, key):
    changed(annotations, section, lambda each: each.pop(key))
    with pytest.raises(DataError, match=f"no '{key}'"):
        read_coco(annotations)


@pytest.mark.parametrize("box", [[1, 2, 3], "box", None, [1, 2, "a", 4], [float("nan"), 2, 3, 4]])
def test_a_box_that_is_not_four_numbers_is_refused(annotations, box):
    changed(annotations, "annotations", lambda each: each.update(bbox=box))
    with pytest.raises(DataError, match="not in COCO form"):
        read_coco(annotations)


def test_pictures_that_share_an_id_are_refused(annotations):
    changed(annotations, "images", lambda each: each.update(id=1))
    with pytest.raises(DataError, match="different ids"):
        read_coco(annotations)


def test_ids_as_text_and_empty_fields_are_accepted(annotations):
    known = read_coco(annotations)
    changed(annotations, "images", lambda each: each.update(id=str(each["id"])))
    changed(annotations, "annotations", lambda each: each.update(area=None, iscrowd=None))
    found = read_coco(annotations)
    assert found.paths == known.paths
    assert [each["id"] for each in found.document["images"]] == list(known.paths)
    assert {each["iscrowd"] for each in found.document["annotations"]} == {0}


def test_a_box_of_a_category_that_is_not_named_is_refused(annotations):
    changed(annotations, "annotations", lambda each: each.update(category_id=99))
    with pytest.raises(DataError, match="category 99"):
        read_coco(annotations)


def test_pictures_are_found_in_annotations_without_boxes(annotations):
    document = json.loads(annotations.read_text())
    annotations.write_text(json.dumps({"images": document["images"]}))
    found = find_pictures(annotations)
    assert found.sources == find_pictures(annotations.parent / "images").sources
    assert len(found) == len(document["images"])


@pytest.mark.parametrize("box", [[1, 2, -3, 4], [1, 2, 3, -4], [1, 2, 0, 4], [1, 2, 3, 0]])
def test_a_single_empty_or_negative_box_is_skipped_and_counted_with_its_id(annotations, box):
    document = json.loads(annotations.read_text())
    document["annotations"][4].update(bbox=box, id=104)
    annotations.write_text(json.dumps(document))
    dataset = read_coco(annotations)
    assert len(dataset.document["annotations"]) == len(document["annotations"]) - 1
    (remark,) = dataset.remarks
    assert "1 of 18 boxes" in remark
    assert "104" in remark


@pytest.mark.parametrize(
    "name",
    [
        "images/{}",
        "train\\images\\{}",
        "C:\\set\\images\\{}",
        "/home/somebody/images/{}",
        "../images/{}",
        "../../../../etc/{}",
        ".\\{}",
    ],
)
def test_a_file_name_of_another_machine_finds_its_picture(annotations, name):
    known = read_coco(annotations).paths
    changed(
        annotations, "images", lambda each: each.update(file_name=name.format(each["file_name"]))
    )
    assert read_coco(annotations).paths == known


def test_a_picture_is_taken_from_the_folder_that_its_name_says(annotations):
    folder = annotations.parent / "images"
    (folder / "deep").mkdir()
    (folder / "001.png").rename(folder / "deep" / "001.png")
    (folder / "001.png").write_bytes(b"another one")
    changed(
        annotations,
        "images",
        lambda each: each["id"] == 1 and each.update(file_name="deep\\001.png"),
    )
    assert read_coco(annotations).paths[1] == folder / "deep" / "001.png"


@pytest.mark.parametrize("form", ["{}", "../{name}", "images/../../{name}"])
def test_no_file_outside_of_the_pictures_folder_is_opened(annotations, form):
    secret = annotations.parent.parent / "secret.png"
    secret.write_bytes((annotations.parent / "images" / "001.png").read_bytes())
    name = form.format(secret, name=f"../{secret.name}")
    changed(annotations, "images", lambda each: each["id"] == 1 and each.update(file_name=name))
    with pytest.raises(DataError, match=r"secret\.png', which is not in"):
        read_coco(annotations)


@pytest.mark.parametrize("name", [None, 3, "", "x" * 5000, "a\0b", "\ud800.png"])
def test_an_impossible_file_name_is_refused(annotations, name):
    changed(annotations, "images", lambda each: each["id"] == 1 and each.update(file_name=name))
    with pytest.raises(DataError):
        read_coco(annotations)


def test_two_pictures_that_name_one_file_are_refused(annotations):
    changed(
        annotations,
        "images",
        lambda each: each["id"] < 3 and each.update(file_name=f"part{each['id']}/001.png"),
    )
    with pytest.raises(DataError, match=r"the same file, '.*001\.png'"):
        read_coco(annotations)


def test_category_ids_as_text_are_numbers_to_pycocotools_too(annotations):
    known = read_coco(annotations)
    changed(annotations, "categories", lambda each: each.update(id=str(each["id"])))
    changed(
        annotations, "annotations", lambda each: each.update(category_id=str(each["category_id"]))
    )
    found = read_coco(annotations)
    assert found.categories == known.categories
    results = noisy_results(known, shift=0)
    assert measure(results, found).ap == measure(results, known).ap == pytest.approx(1)


def test_roboflows_category_that_groups_the_others_is_left_out(annotations):
    document = json.loads(annotations.read_text())
    for each in document["categories"]:
        each["supercategory"] = "shapes"
    document["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})
    annotations.write_text(json.dumps(document))
    assert list(read_coco(annotations).categories) == [10, 11, 12]


def test_a_box_that_is_not_finite_is_refused_with_the_id_of_its_annotation(annotations):
    changed(annotations, "annotations", lambda each: each.update(bbox=[1, 2, float("inf"), 4]))
    with pytest.raises(DataError, match="annotation 1 has the invalid box"):
        read_coco(annotations)

"""Class names from every kind of file: which output of the model each name belongs to."""

from __future__ import annotations

import json

import pytest

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.labels import read_labels
from effdet_deploy.artifact.spec import ClassSpec
from effdet_deploy.errors import DataError, MissingPackageError, UsageError


def written(folder, name, content):
    """Write ``content``, as JSON where it is not text, and return the path."""
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def coco(folder, names, *, annotations=(), supercategory=None):
    """Write COCO annotations whose categories are ``names`` by id.

    All categories but the first have ``supercategory``. ``annotations`` holds each box's category.
    """
    categories = [{"id": number, "name": name} for number, name in names.items()]
    for each in categories[1:] if supercategory else ():
        each["supercategory"] = supercategory
    boxes = [{"category_id": number} for number in annotations]
    document = {"categories": categories, "images": [], "annotations": boxes}
    return written(folder, "annotations.json", document)


def named(path, num_classes, rule=None):
    """Return the name and the category id of every output."""
    classes, _ = read_labels(path).classes(num_classes, rule)
    return [(each.name, each.category_id) for each in classes]


def test_a_text_file_holds_one_class_name_per_line(tmp_path):
    path = written(tmp_path, "labels.txt", "cat\n\n  größer Hund \n")
    assert named(path, 2) == [("cat", 1), ("größer Hund", 2)]


def test_a_byte_order_mark_is_not_part_of_a_name(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\n", encoding="utf-8-sig")
    assert named(tmp_path / "labels.txt", 2) == [("cat", 1), ("dog", 2)]


def test_coco_annotations_give_names_and_ids_in_order_of_id(tmp_path):
    path = coco(tmp_path, {7: "train", 3: "car"})
    assert named(path, 2) == [("car", 3), ("train", 7)]
    _, (said,) = read_labels(path).classes(2)
    assert "in order of their ids" in said


def test_ids_that_count_from_one_need_no_note(tmp_path):
    classes, said = read_labels(coco(tmp_path, {1: "a", 2: "b"})).classes(2)
    assert classes == (ClassSpec("a", 1), ClassSpec("b", 2))
    assert said == ()


def test_cocos_80_categories_lie_on_90_outputs_where_their_ids_say(tmp_path):
    """With 90 outputs, a category's id says which output it has; with 80, its rank by id does."""
    slots = {
        each.category_id: each.name
        for each in class_specs(90)
        if not each.name.startswith("unused")
    }
    labels = read_labels(coco(tmp_path, slots))
    assert len(slots) == 80
    classes, (said,) = labels.classes(90)
    assert classes == class_specs(90)
    assert "CocoParser" in said
    assert [each.category_id for each in labels.classes(80)[0]] == sorted(slots)


def test_ids_as_text_are_numbers(tmp_path):
    document = {"categories": [{"id": str(each), "name": f"n{each}"} for each in (10, 9)]}
    assert named(written(tmp_path, "a.json", document), 2) == [("n9", 9), ("n10", 10)]


@pytest.mark.parametrize("number", ["three", 1.5, None, True, [1], "9" * 400, 1e300])
def test_an_id_that_is_not_a_whole_number_is_refused(tmp_path, number):
    document = {"categories": [{"id": number, "name": "cat"}]}
    with pytest.raises(DataError, match="an id is"):
        read_labels(written(tmp_path, "a.json", document))


def test_two_categories_with_one_id_are_refused(tmp_path):
    document = {"categories": [{"id": 1, "name": "cat"}, {"id": "1", "name": "dog"}]}
    with pytest.raises(DataError, match="2 categories have only 1 different ids"):
        read_labels(written(tmp_path, "a.json", document))


def test_roboflows_category_that_groups_the_others_names_no_output(tmp_path):
    names = {0: "animals", 1: "cat", 2: "dog"}
    path = coco(tmp_path, names, annotations=[1, 2], supercategory="animals")
    labels = read_labels(path)
    classes, (said,) = labels.classes(2)
    assert classes == (ClassSpec("cat", 1), ClassSpec("dog", 2))
    assert "'animals', which only groups other categories" in said


def test_a_category_that_groups_others_and_may_have_an_output_is_refused_until_the_user_chooses(
    tmp_path,
):
    """With one output per category, names fit by rank and by id: only the user knows which."""
    names = {0: "animals", 1: "cat", 2: "dog"}
    path = coco(tmp_path, names, annotations=[1, 2], supercategory="animals")
    with pytest.raises(DataError) as caught:
        named(path, 3)
    assert "output 0 is 'animals' by rank and 'cat' by id" in caught.value.cause
    assert "--labels-by rank" in caught.value.remedy
    assert "--labels-by id" in caught.value.remedy
    assert named(path, 3, "rank") == [("animals", 0), ("cat", 1), ("dog", 2)]
    assert named(path, 3, "id") == [("cat", 1), ("dog", 2), ("unused 3", 3)]


@pytest.mark.parametrize("annotations", [[0, 1], []])
def test_a_supercategory_that_owns_a_box_or_may_own_one_is_a_class(tmp_path, annotations):
    """Without annotations nobody knows whether the supercategory owns a box."""
    names = {0: "animals", 1: "cat"}
    path = coco(tmp_path, names, annotations=annotations, supercategory="animals")
    assert named(path, 2, "rank") == [("animals", 0), ("cat", 1)]


def test_a_category_that_is_its_own_supercategory_is_a_class(tmp_path):
    # In COCO itself, the supercategory of "person" is "person".
    document = {
        "categories": [
            {"id": 1, "name": "person", "supercategory": "person"},
            {"id": 2, "name": "cat", "supercategory": "animal"},
        ],
        "annotations": [{"category_id": 2}],
    }
    assert named(written(tmp_path, "a.json", document), 2) == [("person", 1), ("cat", 2)]


def test_ids_from_zero_need_a_choice_by_the_user_because_effdet_trains_no_output_for_zero(tmp_path):
    path = coco(tmp_path, {0: "a", 1: "b", 2: "c"})
    with pytest.raises(DataError, match="output 0 is 'a' by rank and 'b' by id"):
        named(path, 3)
    assert named(path, 3, "rank") == [("a", 0), ("b", 1), ("c", 2)]
    assert named(path, 3, "id") == [("b", 1), ("c", 2), ("unused 3", 3)]


@pytest.mark.parametrize("names", [{1: "a", 2: "b"}, {5: "a", 6: "b"}, {1: "a", 9: "b"}])
def test_fewer_labels_than_outputs_are_refused(tmp_path, names):
    with pytest.raises(DataError, match=r"2 labels.*do not fit a model of 4 classes"):
        named(coco(tmp_path, names), 4)


def test_fewer_labels_than_outputs_are_taken_where_the_user_asks_for_ids(tmp_path):
    path = coco(tmp_path, {1: "a", 2: "b"})
    assert named(path, 3, "id") == [("a", 1), ("b", 2), ("unused 3", 3)]


@pytest.mark.parametrize(
    "names", ["[cat, 'no', 3]", "{0: cat, 1: no, 2: 3}", "\n  2: 3\n  0: cat\n  1: no\n"]
)
def test_yolos_data_file_numbers_the_outputs_from_zero(tmp_path, names):
    """YAML reads the name ``no`` as false and ``3`` as a number: names must stay text."""
    path = written(tmp_path, "data.yaml", f"train: ../train\nnc: 3\nnames: {names}\n")
    assert named(path, 3) == [("cat", 1), ("no", 2), ("3", 3)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("names: {1: cat, 2: dog}", r"numbered \[1, 2\]"),
        ("names: {a: cat}", "an id is 'a'"),
        ("nc: 3\nnames: [cat]", "nc is 3, but it has 1 names"),
        ("train: here", "has no 'names'"),
        ("names: {", "expected"),
        ("names: [[a]]", "not a list of text"),
        ("- a", "indices"),
    ],
)
def test_a_damaged_or_contradictory_data_file_is_refused(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read_labels(written(tmp_path, "data.yaml", text))


LABEL_MAP = """
# of the TensorFlow Object Detection API
item { name: "/m/01g317" id: 1 display_name: "person" }
item: {
  id: 3
  name: 'it\\'s'
  frequency: FREQUENT
  keypoints { id: 7 label: "nose" }
}
"""


def test_a_label_map_of_tensorflow_numbers_the_outputs_from_one(tmp_path):
    path = written(tmp_path, "map.pbtxt", LABEL_MAP)
    assert named(path, 3) == [("person", 1), ("unused 2", 2), ("it's", 3)]
    assert read_labels(path).classes(3)[1] == ()
    assert named(path, 2, "rank") == [("person", 1), ("it's", 3)]
    with pytest.raises(DataError, match=r"2 labels.*2 classes"):
        named(path, 2)


@pytest.mark.parametrize(
    "text", ["item {", "item { id: 0 name: 'a' }", "item { id: 1 } item { id: 1 }", "cat\ndog"]
)
def test_a_damaged_label_map_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(written(tmp_path, "map.pbtxt", text))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "\n\n"),
        ("labels.json", "{"),
        ("labels.json", "[]"),
        ("labels.json", "[1, 2]"),
        ("labels.json", '{"classes": ["cat"]}'),
        ("labels.json", '{"categories": []}'),
        ("labels.json", '{"categories": [{"id": 1}]}'),
        ("labels.json", "3"),
        ("labels.json", "[" * 200_000),
        ("labels.yaml", "- " * 20_000),
        ("labels.yaml", "names: []"),
        ("labels.pbtxt", ""),
    ],
)
def test_a_file_without_names_is_refused(tmp_path, name, content):
    with pytest.raises(DataError, match=name):
        read_labels(written(tmp_path, name, content))


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"labels\.txt"):
        read_labels(tmp_path / "labels.txt")


def test_a_list_of_names_must_name_every_output(tmp_path):
    labels = read_labels(written(tmp_path, "labels.json", ["a", "b"]))
    with pytest.raises(DataError, match="2 labels for a model of 3 classes"):
        labels.classes(3)
    with pytest.raises(UsageError, match="the labels must have ids"):
        labels.classes(2, "id")


def test_a_missing_yaml_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(MissingPackageError, match=r"effdet-deploy\[export\]"):
        read_labels(written(tmp_path, "data.yaml", "names: [a]"))

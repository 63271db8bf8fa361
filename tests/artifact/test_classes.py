from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from effdet_deploy.artifact.classes import class_specs, read_labels
from effdet_deploy.artifact.spec import ClassSpec
from effdet_deploy.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

COCO_CATEGORIES = 80


def test_ninety_classes_are_cocos_slots_with_their_own_category_ids() -> None:
    classes = class_specs(90)
    named = [each for each in classes if not each.name.startswith("unused")]
    assert len(named) == COCO_CATEGORIES
    assert classes[0] == ClassSpec("person", 1)
    assert classes[16] == ClassSpec("cat", 17)
    assert classes[89] == ClassSpec("toothbrush", 90)


def test_other_classes_are_numbered_with_ids_from_one() -> None:
    assert class_specs(2) == (ClassSpec("class 0", 1), ClassSpec("class 1", 2))


def test_a_text_file_names_a_class_a_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\n\n  größer Hund \n", encoding="utf-8")
    assert read_labels(path) == (["cat", "größer Hund"], None)


def test_coco_annotations_give_names_and_ids_in_order_of_id(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    categories = [{"id": 7, "name": "train"}, {"id": 3, "name": "car"}]
    path.write_text(json.dumps({"categories": categories, "images": []}))
    assert read_labels(path) == (["car", "train"], [3, 7])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "\n\n"),
        ("labels.json", "{"),
        ("labels.json", "[]"),
        ("labels.json", "[1, 2]"),
        ("labels.json", '{"classes": ["cat"]}'),
        ("labels.json", "3"),
    ],
)
def test_a_file_without_names_is_refused(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError):
        read_labels(path)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.txt"):
        read_labels(tmp_path / "labels.txt")


def test_names_must_be_as_many_as_classes() -> None:
    with pytest.raises(DataError, match="2 labels for a model of 3 classes"):
        class_specs(3, ["a", "b"])


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n", encoding="utf-8-sig")
    assert read_labels(tmp_path / "labels.txt") == (["cat", "dog"], None)

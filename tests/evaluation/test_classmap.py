"""A model's and a set's classes are joined by name, else by id; no case may lose mAP silently."""

from __future__ import annotations

import dataclasses
import json

import pytest

from effdet_deploy.artifact.spec import ClassSpec
from effdet_deploy.errors import DataError, UsageError
from effdet_deploy.evaluation.classmap import join_classes
from tests.onnx_models import detector_spec

NAMES = ("zero", "one", "two")


def model_of(names=NAMES, first: int = 1):
    classes = tuple(ClassSpec(name, first + index) for index, name in enumerate(names))
    return dataclasses.replace(detector_spec(), classes=classes)


def test_equal_names_and_ids_are_joined_without_a_note():
    joined = join_classes(model_of(), {1: "zero", 2: "one", 3: "two"})
    assert joined.category_of == {1: 1, 2: 2, 3: 3}
    assert joined.note == ""
    assert joined.lacking == ()


@pytest.mark.parametrize(
    "categories",
    [
        {0: "zero", 1: "one", 2: "two"},
        {3: "zero", 2: "one", 1: "two"},
        {10: "zero", 20: "one", 30: "two"},
        {1: "one", 2: "zero", 3: "two"},
        {0: "Zero", 1: "ONE", 2: " two "},
    ],
)
def test_names_decide_where_ids_differ_and_a_note_says_so(categories):
    joined = join_classes(model_of(), categories)
    for index, name in enumerate(NAMES):
        assert categories[joined.category_of[index + 1]].strip().casefold() == name
    assert "matched by name" in joined.note


def test_foreign_names_under_the_same_ids_are_refused_with_both_names_and_the_option():
    with pytest.raises(DataError) as caught:
        join_classes(model_of(), {1: "cat", 2: "dog", 3: "cow"})
    assert "1 is 'zero' and 'cat'" in caught.value.cause
    assert "--class-map" in caught.value.remedy


def test_one_foreign_name_among_known_ones_is_refused_too():
    with pytest.raises(DataError, match="3 is 'two' and 'cow'"):
        join_classes(model_of(), {1: "zero", 2: "one", 3: "cow"})


def test_a_category_that_the_model_lacks_is_listed():
    joined = join_classes(model_of(), {1: "zero", 2: "one", 3: "two", 9: "nine"})
    assert joined.lacking == (9,)


def test_a_class_that_the_set_lacks_is_left_out():
    joined = join_classes(model_of(), {1: "zero", 3: "two"})
    assert joined.category_of == {1: 1, 3: 3}
    rows = [{"category_id": number} for number in (1, 2, 3)]
    assert joined.of_results(rows) == [{"category_id": 1}, {"category_id": 3}]


def test_classes_without_names_are_joined_by_id_and_a_note_says_so():
    joined = join_classes(model_of(("class 0", "class 1", "class 2")), {1: "cat", 2: "dog"})
    assert joined.category_of == {1: 1, 2: 2}
    assert "no names" in joined.note


def test_a_name_that_two_classes_share_decides_nothing():
    with pytest.raises(DataError, match="--class-map"):
        join_classes(model_of(("a", "a", "b")), {5: "a", 6: "b", 7: "a"})


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("by-name", {1: 2, 2: 1}), ("by-id", {1: 1, 2: 2, 3: 3})],
)
def test_a_rule_that_the_user_gives_decides(rule, expected):
    joined = join_classes(model_of(), {1: "one", 2: "zero", 3: "cow"}, rule)
    assert joined.category_of == expected


def test_a_class_map_file_decides(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"zero": 7, "two": 8}))
    joined = join_classes(model_of(), {7: "cat", 8: "dog", 9: "cow"}, path)
    assert joined.category_of == {1: 7, 3: 8}
    assert joined.lacking == (9,)


@pytest.mark.parametrize("content", [{"five": 7}, {"zero": 5}])
def test_a_class_map_with_an_unknown_name_or_id_is_refused(tmp_path, content):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="does not fit: no "):
        join_classes(model_of(), {7: "cat"}, path)


def test_an_unknown_rule_is_a_usage_error():
    with pytest.raises(UsageError, match="by-name, by-id or a JSON file"):
        join_classes(model_of(), {1: "zero"}, "by-luck")


def test_a_set_that_has_nothing_in_common_with_the_model_is_refused():
    with pytest.raises(DataError, match="nothing in common"):
        join_classes(model_of(), {7: "cat"})


def test_an_engine_without_classes_keeps_its_ids():
    spec = dataclasses.replace(detector_spec(), classes=())
    joined = join_classes(spec, {7: "cat"})
    assert joined.of_results([{"category_id": 3}]) == [{"category_id": 3}]


def test_a_class_map_may_hold_ids_as_text_and_nothing_but_ids(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"zero": "7"}))
    assert join_classes(model_of(), {7: "cat"}, path).category_of == {1: 7}
    for value in ("seven", [7], None, {}):
        path.write_text(json.dumps({"zero": value}))
        with pytest.raises(DataError, match="an id is"):
            join_classes(model_of(), {7: "cat"}, path)

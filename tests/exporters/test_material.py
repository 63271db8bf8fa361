"""What an export is given beside its options is read once, and doubted before the work."""

from __future__ import annotations

import json

import pytest

from effdet_deploy.errors import DataError, UsageError
from effdet_deploy.exporters.material import read_material
from effdet_deploy.exporters.options import ExportOptions
from tests.evaluation.sets import write_set
from tests.onnx_models import detector_spec


@pytest.fixture
def annotations(tmp_path):
    return write_set(tmp_path / "set", images=8)


def options(annotations, **more):
    return ExportOptions(
        precision="int8",
        target="openvino",
        calibration=annotations.parent / "images",
        max_map_drop=1,
        eval_data=annotations,
        **more,
    )


def change(annotations, section, apply):
    document = json.loads(annotations.read_text())
    for each in document[section]:
        apply(each)
    annotations.write_text(json.dumps(document))


def test_a_budget_on_a_sound_set_has_nothing_to_say(annotations):
    assert read_material(options(annotations)).notes_for(detector_spec()) == ()


def test_a_budget_joins_classes_by_name_and_says_so(annotations):
    change(annotations, "categories", lambda each: each.update(id=each["id"] + 5))
    change(
        annotations, "annotations", lambda each: each.update(category_id=each["category_id"] + 5)
    )
    (said,) = read_material(options(annotations)).notes_for(detector_spec())
    assert "joined by their names" in said


def test_a_budget_on_foreign_names_is_refused_before_the_work(annotations):
    change(annotations, "categories", lambda each: each.update(name=f"foreign {each['id']}"))
    with pytest.raises(DataError, match="--class-map"):
        read_material(options(annotations)).notes_for(detector_spec())
    asked = options(annotations, class_map="by-id")
    assert read_material(asked).notes_for(detector_spec()) == ()


def test_a_budget_on_boxes_that_are_not_of_the_pictures_is_said_to_mean_nothing(annotations):
    def corners(each):
        x, y, width, height = each["bbox"]
        each["bbox"] = [x, y, x + width, y + height]

    change(annotations, "annotations", corners)
    (said,) = read_material(options(annotations)).notes_for(detector_spec())
    assert "The mAP means nothing" in said
    assert "look like corners" in said


def test_a_class_map_without_a_set_is_refused():
    with pytest.raises(UsageError, match="--class-map joins"):
        ExportOptions(class_map="by-name")
    with pytest.raises(UsageError, match="--labels-by reads the ids of --labels, which"):
        ExportOptions(labels_by="rank")

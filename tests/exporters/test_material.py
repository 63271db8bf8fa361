"""An export reads its evaluation set and its labels once, and checks them before it works.

A budget is the mAP that INT8 may lose on the set.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from torch import nn

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.detection.detector import load
from effdet_deploy.errors import DataError, UsageError
from effdet_deploy.evaluation.evaluating import evaluate
from effdet_deploy.exporters.material import read_material
from effdet_deploy.exporters.options import ExportOptions
from effdet_deploy.exporters.source import specification_of
from effdet_deploy.precision.int8.budget import BudgetedAccuracy
from effdet_deploy.pytorch.network import get_config
from tests.evaluation.sets import write_set
from tests.onnx_models import detector_spec, tiny_model


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


def test_a_budget_on_a_sound_set_gives_no_note(annotations):
    assert read_material(options(annotations)).notes_for(detector_spec()) == ()


def test_a_budget_joins_classes_by_name_and_says_so(annotations):
    change(annotations, "categories", lambda each: each.update(id=each["id"] + 5))
    change(
        annotations, "annotations", lambda each: each.update(category_id=each["category_id"] + 5)
    )
    (said,) = read_material(options(annotations)).notes_for(detector_spec())
    assert "matched by name" in said


def test_a_budget_on_foreign_names_is_refused_before_the_work(annotations):
    change(annotations, "categories", lambda each: each.update(name=f"foreign {each['id']}"))
    with pytest.raises(DataError, match="--class-map"):
        read_material(options(annotations)).notes_for(detector_spec())
    asked = options(annotations, class_map="by-id")
    assert read_material(asked).notes_for(detector_spec()) == ()


def test_a_budget_on_boxes_that_do_not_fit_their_pictures_is_said_to_mean_nothing(annotations):
    def corners(each):
        x, y, width, height = each["bbox"]
        each["bbox"] = [x, y, x + width, y + height]

    change(annotations, "annotations", corners)
    (said,) = read_material(options(annotations)).notes_for(detector_spec())
    assert "The mAP is not meaningful" in said
    assert "look like corners" in said


def test_a_budget_is_held_over_the_categories_that_the_model_has(annotations, tmp_path):
    model = tiny_model(detector_spec())
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    document = json.loads(annotations.read_text())
    with load(tmp_path / "model.onnx") as detector:
        paths = [annotations.parent / "images" / each["file_name"] for each in document["images"]]
        found = enumerate(detector.detect(paths), start=1)
        truth = [row for image_id, each in found for row in each.to_coco(image_id)]
        document["categories"] += [{"id": 90 + index, "name": f"yak {index}"} for index in range(7)]
        document["annotations"] = [*truth, {**truth[0], "category_id": 90}]
        annotations.write_text(json.dumps(document))
        material = read_material(options(annotations))
        (row,) = evaluate({"model": detector}, material.evaluation).models
    (said,) = material.notes_for(detector_spec())
    assert "no class for yak 0, yak 1, yak 2, yak 3, yak 4 and 2 more" in said
    quantizer = SimpleNamespace(key="", cache=tmp_path / "cache" / "calibration")
    judge = BudgetedAccuracy(quantizer, material.evaluation, detector_spec())
    assert judge.measure(model) == row.ap_common == pytest.approx(1)
    assert row.accuracy.ap < 1


def test_a_class_map_without_a_set_is_refused():
    with pytest.raises(UsageError, match="--class-map needs --eval-data"):
        ExportOptions(class_map="by-name")
    with pytest.raises(UsageError, match="--labels-by needs --labels as well"):
        ExportOptions(labels_by="rank")


def loaded(num_classes):
    """Return a D0 with this many classes as if its weights had been loaded; it has none."""
    config = get_config("d0").replace({"num_classes": num_classes})
    fields = dict.fromkeys(
        ("labels", "category_ids", "given", "score_threshold", "max_detections", "soft_nms")
    )
    said = {"weights_sha256": "", "origin": "effdet", "assumed": (), "model": nn.Identity()}
    return SimpleNamespace(config=config, base_config=get_config("d0"), **fields, **said)


def with_labels(tmp_path, categories, num_classes, **more):
    """Return the spec of an export whose file of labels has these categories."""
    path = tmp_path / "labels.json"
    path.write_text(
        json.dumps({"categories": [{"id": n, "name": x} for n, x in categories.items()]})
    )
    asked = ExportOptions(labels=path, **more)
    return specification_of(loaded(num_classes), asked, read_material(asked).labels)


def test_the_artifact_has_cocos_80_categories_on_its_90_outputs(tmp_path):
    slots = {each.category_id: each.name for each in class_specs(90)}
    named = {number: name for number, name in slots.items() if not name.startswith("unused")}
    spec = with_labels(tmp_path, named, 90)
    assert spec.classes == class_specs(90)
    assert "labels.json" in spec.assumed[-1]


def test_labels_that_fit_in_two_ways_are_refused_before_the_graph_is_traced(tmp_path):
    names = {0: "a", 1: "b"}
    with pytest.raises(DataError, match="fit 2 outputs in two ways"):
        with_labels(tmp_path, names, 2)
    assert [each.name for each in with_labels(tmp_path, names, 2, labels_by="rank").classes] == [
        "a",
        "b",
    ]

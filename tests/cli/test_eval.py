"""`eval`: models side by side, and sets that do not fit a model or their own pictures."""

from __future__ import annotations

import json

import pytest

from effdet_deploy.cli import main
from tests.evaluation.sets import write_set
from tests.onnx_models import detector_spec, write_tiny


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("eval") / "set", images=3)


def test_models_stand_side_by_side_with_the_difference(annotations, tmp_path, capsys):
    first = write_tiny(tmp_path / "first.onnx")
    second = write_tiny(tmp_path / "second.onnx", detector_spec(score_threshold=0.2))
    result = tmp_path / "result.json"
    arguments = ["eval", str(first), str(second), "--coco", str(annotations), "--per-class"]
    assert main([*arguments, "--json", str(result)]) == 0
    document = json.loads(result.read_text())
    assert document["pictures"] == 3
    assert [row["difference"] is None for row in document["models"]] == [True, False]
    shown = capsys.readouterr().out
    assert "first.onnx" in shown
    assert "ring" in shown


def test_fast_decode_changes_nothing_for_pictures_that_are_not_large_jpegs(annotations, tmp_path):
    model = write_tiny(tmp_path / "model.onnx")
    documents = []
    for more in ([], ["--fast-decode"]):
        result = tmp_path / "result.json"
        arguments = ["eval", str(model), "--coco", str(annotations), "--json", str(result)]
        assert main([*arguments, *more]) == 0
        documents.append(json.loads(result.read_text()))
    assert documents[0] == documents[1]


def test_a_set_whose_categories_the_model_does_not_have_is_refused(tmp_path, capsys):
    path = write_set(tmp_path / "set", images=1)
    document = json.loads(path.read_text())
    for section, key in (("categories", "id"), ("annotations", "category_id")):
        for each in document[section]:
            each[key] += 500
    for each in document["categories"]:
        each["name"] += " of another kind"
    path.write_text(json.dumps(document))
    model = write_tiny(tmp_path / "model.onnx")
    assert main(["eval", str(model), "--coco", str(path)]) == 5
    assert "have nothing in common" in capsys.readouterr().err


def test_every_model_is_opened_before_the_first_is_measured(annotations, tmp_path, monkeypatch):
    """A mistyped name must not show only after an hour of work."""
    model = write_tiny(tmp_path / "model.onnx")
    monkeypatch.setattr("effdet_deploy.evaluation.evaluating.predict", pytest.fail)
    assert main(["eval", str(model), str(tmp_path / "typo.onnx"), "--coco", str(annotations)]) == 5


@pytest.mark.parametrize("victim", ["annotations", "model"])
def test_no_file_that_is_read_is_overwritten(annotations, tmp_path, capsys, victim):
    model = write_tiny(tmp_path / "model.onnx")
    target = {"annotations": annotations, "model": model}[victim]
    before = target.read_bytes()
    arguments = ["eval", str(model), "--coco", str(annotations), "--json", str(target)]
    assert main(arguments) == 2
    assert "would replace" in capsys.readouterr().err
    assert target.read_bytes() == before


def test_names_are_shown_as_they_are(tmp_path, capsys):
    """The library that prints the tables takes a name in brackets for markup."""
    path = write_set(tmp_path / "set", images=1)
    document = json.loads(path.read_text())
    for each in document["categories"]:
        each["name"] = "x[/y]"
    path.write_text(json.dumps(document))
    models = [str(write_tiny(tmp_path / f"m[{kind}].onnx")) for kind in ("fp16", "fp32")]
    assert main(["eval", *models, "--coco", str(path), "--per-class", "--class-map", "by-id"]) == 0
    shown = capsys.readouterr().out
    assert {"m[fp16].onnx", "m[fp32].onnx", "x[/y]"} <= set(shown.split())


def test_names_and_ids_that_contradict_one_another_are_refused_until_the_user_chooses(
    tmp_path, capsys
):
    path = write_set(tmp_path / "set", images=1)
    document = json.loads(path.read_text())
    for each, name in zip(document["categories"], ("cat", "dog", "cow"), strict=True):
        each["name"] = name
    path.write_text(json.dumps(document))
    model = str(write_tiny(tmp_path / "model.onnx"))
    assert main(["eval", model, "--coco", str(path)]) == 5
    assert "--class-map by-name, by-id" in capsys.readouterr().err
    assert main(["eval", model, "--coco", str(path), "--class-map", "by-id"]) == 0


def test_a_map_on_boxes_that_do_not_fit_their_pictures_carries_a_warning(tmp_path, capsys):
    path = write_set(tmp_path / "set", images=3)
    document = json.loads(path.read_text())
    for each in document["annotations"]:
        x, y, width, height = each["bbox"]
        each["bbox"] = [x, y, x + width, y + height]
    path.write_text(json.dumps(document))
    result = tmp_path / "result.json"
    model = str(write_tiny(tmp_path / "model.onnx"))
    assert main(["eval", model, "--coco", str(path), "--json", str(result)]) == 0
    # On stdout beside the mAP: whoever stores the mAP stores the warning with it.
    shown = capsys.readouterr().out
    assert "The mAP is not meaningful until this is settled: " in shown
    assert "look like corners" in shown
    assert "look like corners" in json.loads(result.read_text())["doubts"][0]


def test_categories_that_the_model_lacks_are_listed_with_the_map_over_the_others(tmp_path):
    path = write_set(tmp_path / "set", images=3)
    document = json.loads(path.read_text())
    document["categories"].append({"id": 99, "name": "yak"})
    document["annotations"][0]["category_id"] = 99
    path.write_text(json.dumps(document))
    result = tmp_path / "result.json"
    model = str(write_tiny(tmp_path / "model.onnx"))
    assert main(["eval", model, "--coco", str(path), "--json", str(result)]) == 0
    (row,) = json.loads(result.read_text())["models"]
    assert row["lacking"] == [99]
    assert row["ap_common"] >= row["ap"]


def test_a_box_that_was_skipped_is_counted_in_the_result(tmp_path, capsys):
    path = write_set(tmp_path / "set", images=3)
    document = json.loads(path.read_text())
    document["annotations"][2].update(bbox=[1, 2, -3, 4], id=77)
    path.write_text(json.dumps(document))
    result = tmp_path / "result.json"
    model = str(write_tiny(tmp_path / "model.onnx"))
    assert main(["eval", model, "--coco", str(path), "--json", str(result)]) == 0
    assert "1 of 9 boxes" in json.loads(result.read_text())["notes"][0]
    assert "annotations 77" in capsys.readouterr().err

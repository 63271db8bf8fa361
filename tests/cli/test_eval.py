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
    assert "thing 11" in shown


def test_a_model_of_other_categories_is_refused(tmp_path, capsys):
    path = write_set(tmp_path / "set", images=1)
    document = json.loads(path.read_text())
    for section, key in (("categories", "id"), ("annotations", "category_id")):
        for each in document[section]:
            each[key] += 500
    path.write_text(json.dumps(document))
    model = write_tiny(tmp_path / "model.onnx")
    assert main(["eval", str(model), "--coco", str(path)]) == 5
    assert "have nothing in common" in capsys.readouterr().err


def test_every_model_is_opened_before_the_first_is_measured(annotations, tmp_path, monkeypatch):
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
    assert "named twice" in capsys.readouterr().err
    assert target.read_bytes() == before


def test_names_are_shown_as_they_are(tmp_path, capsys):
    path = write_set(tmp_path / "set", images=1)
    document = json.loads(path.read_text())
    for each in document["categories"]:
        each["name"] = "x[/y]"
    path.write_text(json.dumps(document))
    models = [str(write_tiny(tmp_path / f"m[{kind}].onnx")) for kind in ("fp16", "fp32")]
    assert main(["eval", *models, "--coco", str(path), "--per-class"]) == 0
    shown = capsys.readouterr().out
    assert {"m[fp16].onnx", "m[fp32].onnx", "x[/y]"} <= set(shown.split())

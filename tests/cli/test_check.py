"""`check`: its findings, its JSON file and its exit codes."""

from __future__ import annotations

import json

import pytest

from effdet_deploy.cli import main
from tests.preflight.graphs import top_k


@pytest.fixture
def too_many(tmp_path):
    path = tmp_path / "[bold]top.onnx"
    path.write_bytes(top_k(5000).SerializeToString())
    return path


def test_a_model_that_fits_exits_with_0(model, capsys):
    assert main(["check", str(model), "--target", "tensorrt-11"]) == 0
    assert "nothing" in capsys.readouterr().out


def test_a_problem_exits_with_5_and_is_shown_with_node_and_remedy(too_many, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["check", str(too_many), "--target", "tensorrt-11"]) == 5
    shown = capsys.readouterr().out
    for words in ("error", "topk", "bad", "TopK has K 5000", "--candidates 3840"):
        assert words in shown


def test_its_json_holds_every_finding(too_many, tmp_path):
    said = tmp_path / "said.json"
    arguments = ["check", str(too_many), "--target", "tensorrt-10", "--json", str(said)]
    assert main(arguments) == 5
    document = json.loads(said.read_text())
    assert document["target"] == "tensorrt-10"
    assert document["file"] == too_many.name
    (found,) = document["findings"]
    assert found["rule"] == "topk"
    assert found["severity"] == "error"
    assert found["node"] == "bad"


def test_the_json_of_a_model_that_fits_holds_no_findings(model, tmp_path):
    said = tmp_path / "said.json"
    assert main(["check", str(model), "--target", "tensorrt-10", "--json", str(said)]) == 0
    assert json.loads(said.read_text())["findings"] == []


def test_an_unknown_target_is_a_usage_error(model, capsys):
    assert main(["check", str(model), "--target", "tensorrt11"]) == 2
    assert "tensorrt-11" in capsys.readouterr().err


def test_the_target_must_be_given(model, capsys):
    assert main(["check", str(model)]) == 2
    assert "--target" in capsys.readouterr().err


def test_a_file_that_is_not_a_model_is_a_bad_input(tmp_path, capsys):
    path = tmp_path / "notes.onnx"
    path.write_text("not a model")
    assert main(["check", str(path), "--target", "tensorrt-11"]) == 5
    assert "not a readable ONNX model" in capsys.readouterr().err


def test_a_json_file_that_cannot_be_written_is_refused_first(model, tmp_path, capsys):
    target = tmp_path / "absent" / "said.json"
    arguments = ["check", str(model), "--target", "tensorrt-11", "--json", str(target)]
    assert main(arguments) == 2
    assert "does not exist" in capsys.readouterr().err

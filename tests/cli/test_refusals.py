"""Options that would be ignored, or would cost a file, are refused before any work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from effdet_deploy.cli import export_main, main
from effdet_deploy.cli.export import stored_command
from effdet_deploy.files import sidecar_path

USAGE, MISSING = 2, 4


def refused(capsys, arguments, code=USAGE, command=main):
    assert command(list(map(str, arguments))) == code
    return " ".join(capsys.readouterr().err.split())


def test_a_report_does_not_replace_the_sidecar_of_an_engine(model, tmp_path, capsys):
    engine = tmp_path / "tiny.engine"
    said = refused(capsys, ["build", model, engine, "--json", sidecar_path(engine)])
    assert "tiny.engine.json' is named twice" in said


def test_a_timing_cache_does_not_replace_the_model(model, tmp_path, capsys):
    before = model.read_bytes()
    asked = ["build", model, tmp_path / "tiny.engine", "--timing-cache", model]
    assert "named twice" in refused(capsys, asked)
    assert model.read_bytes() == before


@pytest.mark.parametrize("option", ["--json", "--keep-onnx", "--timing-cache"])
def test_no_option_of_an_export_names_its_output(option, tmp_path, capsys):
    output = tmp_path / "d0.engine"
    asked = ["--variant", "d0", "--weights", "random", output, option, output]
    assert "d0.engine' is named twice" in refused(capsys, asked, command=export_main)


@pytest.mark.parametrize("command", ["inspect", "check", "detect", "bench"])
def test_no_result_replaces_the_model_or_its_sidecar(command, model, picture, capsys):
    sidecar_path(model).write_text("{}")
    more = {"check": ["--target", "tensorrt-10"], "detect": [picture]}.get(command, [])
    for victim in (model, sidecar_path(model)):
        asked = [command, model, *more, "--json", victim]
        assert f"{victim.name}' is named twice" in refused(capsys, asked)
    assert sidecar_path(model).read_text() == "{}"


def test_one_result_of_bench_does_not_replace_the_other(model, tmp_path, capsys):
    both = tmp_path / "result"
    assert "is named twice" in refused(capsys, ["bench", model, "--json", both, "--markdown", both])


def test_the_result_of_an_export_does_not_replace_what_it_reads(tmp_path, capsys):
    labels = tmp_path / "labels.json"
    asked = ["--variant", "d0", tmp_path / "d0.onnx", "--labels", labels, "--json", labels]
    assert "labels.json' is named twice" in refused(capsys, asked, command=export_main)


def test_pictures_to_compare_on_without_a_comparison(model, tmp_path, capsys):
    asked = ["build", model, tmp_path / "e.engine", "--no-verify", "--verify-images", tmp_path]
    assert "--verify-images" in refused(capsys, asked)


def test_a_target_of_a_file_that_has_none(tmp_path, capsys):
    asked = ["--variant", "d0", "--target", "openvino", tmp_path / "d0.torchscript"]
    assert "lays out ONNX files" in refused(capsys, asked, command=export_main)


def test_fewer_runs_than_the_fewest(model, capsys):
    assert "--max-runs 5" in refused(capsys, ["bench", model, "--max-runs", 5])


def test_charts_name_their_extra_before_anything_is_timed(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    asked = ["bench", "absent.onnx", "--markdown", tmp_path / "bench.md"]
    assert "pip install 'effdet-deploy[report]'" in refused(capsys, asked, MISSING)


def test_a_limit_of_nothing(model, capsys):
    asked = ["compare", model, "--reference", model, "--limit", 2]
    assert "--limit" in refused(capsys, asked)


def test_accuracy_without_pycocotools_is_refused_before_the_annotations_are_read(
    model, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    asked = ["eval", model, "--coco", tmp_path / "absent.json"]
    assert "pip install 'effdet-deploy[eval]'" in refused(capsys, asked, MISSING)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"verify": False}, "--no-verify"),
        ({"labels": Path("my labels.txt")}, "--labels 'my labels.txt'"),
        ({"weights": "https://host/a/x.pth?X-Amz-Signature=secret"}, "--weights x.pth"),
        ({"weights": "/home/somebody/x.pth"}, "--weights x.pth"),
        ({"score_threshold": 0.0}, "--score-threshold 0.0"),
        ({"dla_core": 0}, "--dla-core 0"),
        ({"json_file": "x", "tf32": False, "labels": None}, ""),
    ],
)
def test_the_stored_command_makes_the_same_and_gives_nothing_away(given, stored):
    assert stored_command({"verify": True} | given) == f"effdet-export {stored}".strip()

"""Options that would be ignored, or would cost a file, are refused before any work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from effdet_deploy.cli import export_main, main
from effdet_deploy.cli.export import stored_command
from effdet_deploy.errors import DeviceError, UsageError
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.tensorrt import engine
from effdet_deploy.exporters.tensorrt.timing_cache import require_own_note
from effdet_deploy.files import sidecar_path
from effdet_deploy.reports.benchmark import require_own_charts

USAGE, MISSING = 2, 4


def refused(capsys, arguments, code=USAGE, command=main):
    """Run a command that must end with ``code``; return what it says, on one line."""
    assert command(list(map(str, arguments))) == code
    return " ".join(capsys.readouterr().err.split())


def test_a_report_does_not_replace_the_sidecar_of_an_engine(model, tmp_path, capsys):
    output = tmp_path / "tiny.engine"
    said = refused(capsys, ["build", model, output, "--json", sidecar_path(output)])
    assert "--json would replace" in said
    assert "tiny.engine.json', which this command reads or writes" in said


def test_a_timing_cache_does_not_replace_the_model(model, tmp_path, capsys):
    before = model.read_bytes()
    asked = ["build", model, tmp_path / "tiny.engine", "--timing-cache", model]
    assert f"--timing-cache would replace '{model}'" in refused(capsys, asked)
    assert model.read_bytes() == before


@pytest.mark.parametrize("option", ["--json", "--keep-onnx", "--timing-cache"])
def test_no_other_option_of_an_export_may_name_its_output(option, tmp_path, capsys):
    output = tmp_path / "d0.engine"
    asked = ["--variant", "d0", "--weights", "random", output, option, output]
    assert f"{option} would replace '{output}'" in refused(capsys, asked, command=export_main)


@pytest.mark.parametrize("command", ["inspect", "check", "detect", "bench"])
def test_no_result_replaces_the_model_or_its_sidecar(command, model, picture, capsys):
    sidecar_path(model).write_text("{}")
    more = {"check": ["--target", "tensorrt-10"], "detect": [picture]}.get(command, [])
    for victim in (model, sidecar_path(model)):
        asked = [command, model, *more, "--json", victim]
        assert f"--json would replace '{victim}'" in refused(capsys, asked)
    assert sidecar_path(model).read_text() == "{}"


def test_one_result_of_bench_does_not_replace_the_other(model, tmp_path, capsys):
    both = tmp_path / "result"
    asked = ["bench", model, "--json", both, "--markdown", both]
    assert f"--json and --markdown both name '{both}'" in refused(capsys, asked)


def test_the_result_of_an_export_does_not_replace_what_it_reads(tmp_path, capsys):
    labels = tmp_path / "labels.json"
    asked = ["--variant", "d0", tmp_path / "d0.onnx", "--labels", labels, "--json", labels]
    assert f"--json would replace '{labels}'" in refused(capsys, asked, command=export_main)


def test_verification_pictures_without_a_verification_are_refused(model, tmp_path, capsys):
    asked = ["build", model, tmp_path / "e.engine", "--no-verify", "--verify-images", tmp_path]
    assert "--verify-images" in refused(capsys, asked)


def test_a_target_is_refused_for_a_torchscript_file(tmp_path, capsys):
    asked = ["--variant", "d0", "--target", "openvino", tmp_path / "d0.torchscript"]
    assert "is only for ONNX files" in refused(capsys, asked, command=export_main)


def test_max_runs_below_min_runs_is_refused(model, capsys):
    assert "--max-runs 5" in refused(capsys, ["bench", model, "--max-runs", 5])


def test_charts_name_their_extra_before_anything_is_timed(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    asked = ["bench", "absent.onnx", "--markdown", tmp_path / "bench.md"]
    assert "pip install 'effdet-deploy[report]'" in refused(capsys, asked, MISSING)


def test_a_limit_without_pictures_to_limit_is_refused(model, capsys):
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
def test_the_stored_command_keeps_the_options_and_drops_folders_and_secrets(given, stored):
    assert stored_command({"verify": True} | given) == f"effdet-export {stored}".strip()


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_no_result_replaces_a_picture_of_a_folder_that_is_read(option, model, picture, capsys):
    before = picture.read_bytes()
    folder = ["--images", picture.parent, option, picture]
    asked = ["compare", model, "--reference", model, *folder]
    assert f"{option} would replace the picture '{picture}'" in refused(capsys, asked)
    assert picture.read_bytes() == before


def test_a_chart_replaces_only_a_file_that_the_old_markdown_shows(model, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    chart = tmp_path / "bench-latency.svg"
    chart.write_text("mine")
    asked = ["bench", model, model, "--markdown", tmp_path / "bench.md"]
    assert f"A chart of --markdown would replace '{chart}'" in refused(capsys, asked)
    assert chart.read_text() == "mine"
    (tmp_path / "bench.md").write_text(f"![latency]({chart.name})")
    require_own_charts(tmp_path / "bench.md")


def test_the_note_beside_a_timing_cache_replaces_no_other_file(tmp_path):
    cache = tmp_path / "timings"
    require_own_note(cache)
    sidecar_path(cache).write_text('{"origin": {}, "sha256": ""}')
    require_own_note(cache)
    for content in ('{"mine": 1}', "[]", "no JSON"):
        sidecar_path(cache).write_text(content)
        with pytest.raises(UsageError, match="The sidecar of the timing cache would replace"):
            require_own_note(cache)
    # A damaged note is discarded with the cache that it stands beside.
    cache.touch()
    require_own_note(cache)


@pytest.mark.parametrize("command", ["export", "build"])
def test_a_folder_in_the_place_of_the_sidecar_is_refused_before_the_work(
    command, model, tmp_path, capsys
):
    output = tmp_path / {"export": "d0.onnx", "build": "d0.engine"}[command]
    sidecar_path(output).mkdir()
    more = ["--variant", "d0", "--weights", "random"] if command == "export" else [model]
    asked = [command, *more, output]
    assert f"The sidecar of '{output}' would replace the directory" in refused(capsys, asked)


def test_an_engine_for_refitting_is_refused_without_a_gpu_before_the_build(monkeypatch):
    monkeypatch.setattr(engine, "list_gpus", lambda: ())
    options = BuildOptions(backend="tensorrt-rtx", refit=True)
    with pytest.raises(DeviceError, match="needs a GPU to build an engine that can be refitted"):
        engine.require_ready(options, verify=False)
    monkeypatch.setattr(engine, "list_gpus", lambda: ("a GPU",))
    engine.require_ready(options, verify=False)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["detect", ""], "detect"),
        (["inspect", "--json", ""], "--json"),
        (["inspect", "--json="], ""),
    ],
)
def test_an_empty_argument_is_refused(arguments, named, capsys):
    """Python would take the empty path for the current folder."""
    said = refused(capsys, arguments)
    assert "An argument is empty" in said
    assert named in said


def test_a_tilde_behind_an_equals_sign_is_the_home_folder(model, tmp_path, capsys, monkeypatch):
    """A shell expands ``--json ~/found.json`` and leaves ``--json=~/found.json`` as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert main(["inspect", str(model), "--json=~/found.json"]) == 0
    assert (tmp_path / "found.json").is_file()


def test_a_name_in_another_encoding_is_stored_escaped():
    name = Path(b"caf\xe9.txt".decode("utf-8", "surrogateescape"))
    assert stored_command({"verify": True, "labels": name}).encode().endswith(rb"caf\udce9.txt'")
